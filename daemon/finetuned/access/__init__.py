"""What may be reached: paths on the server, and addresses outside."""

from __future__ import annotations
