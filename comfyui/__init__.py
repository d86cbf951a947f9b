"""ComfyUI's formats and errors; nothing here does I/O."""
