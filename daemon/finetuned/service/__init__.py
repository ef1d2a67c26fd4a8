"""The daemon as a service of systemd: installed, upgraded and removed, each by a plan that is shown first."""
