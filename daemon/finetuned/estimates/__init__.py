"""What a job will take, compared with what there is, and what would fit."""
