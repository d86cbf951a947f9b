"""A stand-in for ComfyUI: its nodes, its pictures, its server."""
