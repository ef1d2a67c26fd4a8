"""On-policy distillation: the student samples, the teacher scores, the student learns."""
