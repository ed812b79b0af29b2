# The service (docs/serving.md) as an image: docker build -t captioner .
FROM python:3.11-slim
WORKDIR /build
COPY setup.py setup.cfg pyproject.toml README.md LICENSE constraints.txt ./
COPY captioner captioner
RUN pip install --no-cache-dir --constraint constraints.txt '.[serve]' && rm -rf /build/*
RUN useradd --create-home captioner
USER captioner
WORKDIR /home/captioner
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=3)"]
ENTRYPOINT ["captioner", "serve"]
CMD ["--help"]
