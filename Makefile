# Two commands for a newcomer: `make replicate` and `make test`. Both set themselves up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
unexport PYTHONDONTWRITEBYTECODE # imports from bytecode: seconds for each process that tests start

.PHONY: replicate test setup check constraints docs lint mutation clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade -c constraints.txt pip
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e ".[test]"
	touch $@

replicate: setup  ## train SmolLM2 three ways and report; a finished run is only judged again
	$(BIN)/squeeze replicate --resume

test: setup  ## the fast suite
	$(BIN)/squeeze models fetch
	HF_HUB_OFFLINE=1 $(BIN)/pytest -m cpu -n 2 --dist worksteal

lint: setup
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

constraints:  ## exact versions for every Python and platform, from the ranges in pyproject.toml
	uv pip compile --no-config --universal --python-version 3.11 pyproject.toml --all-extras \
		--group tools --group pinned --no-annotate \
		--custom-compile-command "make constraints" --output-file constraints.txt

docs: setup  ## the site, in build/site
	$(BIN)/pip install --quiet -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

mutation: setup  ## mutation testing of the theory and the losses (an hour)
	$(BIN)/pip install --quiet -c constraints.txt mutmut
	HYPOTHESIS_PROFILE=mutation OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 \
		$(BIN)/python -m tests.mutation run --max-children 2
	$(BIN)/mutmut results

check:  ## everything that CI runs
	bash .ci/run

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
