"""The doors: FastAPI and uvicorn. Knows no Ray."""
