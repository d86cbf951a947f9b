# README.md has the commands. Without root; `data` and `workflows` are volumes.
FROM python:3.12-slim

WORKDIR /comfygen
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt \
    && useradd --system --uid 1000 comfygen
COPY . .
RUN mkdir -p data && chown -R comfygen: data workflows

USER comfygen
VOLUME ["/comfygen/data", "/comfygen/workflows"]
# Large pictures go back to the system as soon as they are posted (glibc).
ENV PYTHONUNBUFFERED=1 MALLOC_MMAP_THRESHOLD_=262144
# Python itself is process 1, so that SIGTERM reaches it.
CMD ["python", "comfygen.py"]
