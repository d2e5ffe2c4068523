# Each target makes .venv and installs what it needs: each works alone on a fresh clone.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# Two workers of one thread each: the same time as one worker of two, and no thread waits for another's core.
TEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist loadscope

.PHONY: demo test test-all test-gpu lint app clean

demo: $(READY)
	$(BIN)/dora-diffusion demo

app: $(READY)
	$(BIN)/python app.py

# The browser's tests come after all others, in processes of their own: what those leave in memory would stand beside
# servers, trainers and browsers.
test: $(READY)
	$(TEST) -m "not gpu and not slow and not e2e"
	$(TEST) -m "not gpu and not slow and e2e"

test-all: $(READY)
	$(TEST) -m "not gpu and not e2e"
	$(TEST) -m "not gpu and e2e"

test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache demo-output

# torch first and alone: other packages' wishes for it must not bring another build.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ui,dev]'
	touch $(READY)
