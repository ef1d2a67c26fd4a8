"""Engines as the daemon keeps them: started where somebody asks, told to those who do, ended when nobody does."""
