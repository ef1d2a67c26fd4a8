"""Files of the OpenAI API: their content on disk, uploads in parts, and what removes files whose time is over."""
