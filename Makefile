# From a fresh checkout, `make demo` and `make test` set up all that they need.

PYTHON ?= python3
BIN := .venv/bin
METHODS := none,cutmix,random_patchmix,guided_patchmix

.PHONY: demo test test-fast slow clusters quick bench leaderboards submission lowest wheel lint check fix docs docs-site schema clean

demo: .venv/ready  # locate generated birds with four methods, draw their maps, build the site
	$(BIN)/mixbench run -m $(METHODS) -t cub_wsol --protocol quick
	$(BIN)/mixbench report -t cub_wsol --figures
	$(BIN)/mixbench site build

test: .venv/ready  # on two cores; an idle one takes over tests of the other
	$(BIN)/pytest --numprocesses 2 --dist worksteal

test-fast: .venv/ready  # while you edit: no processes, and one method and task of each kind
	$(BIN)/pytest --numprocesses 2 --dist worksteal -m "not slow and not full"

slow: .venv/ready  # kill loops, whole runs, installations, other people's training loops
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[slow]"
	$(BIN)/pytest -m slow

clusters: .venv/ready  # the long tests of the SLURM and Ray engines
	$(BIN)/pytest -m slow tests/test_slurm.py tests/test_ray.py

quick: .venv/ready  # every method and every task once, on what needs no download
	$(BIN)/mixbench run --suite quick

bench: .venv/ready  # every figure of benchmarks/README.md anew
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m benchmarks

leaderboards: .venv/ready  # check the records and the pages made of them, build the site
	$(BIN)/mixbench verify --check
	$(BIN)/mixbench leaderboard build --check
	$(BIN)/mixbench site build

# Checks the suites of the checkout in the folder SUBMISSION with the code of this one: a pull
# request may change the code that would check it. What the commit BASE has must still be there.
submission: .venv/ready
	cd $(SUBMISSION) && $(abspath $(BIN))/mixbench verify --check --base $(BASE) --rerun
	cd $(SUBMISSION) && $(abspath $(BIN))/mixbench leaderboard build --check

lowest:  # run the tests with the lowest versions that pyproject.toml declares
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/pip install --quiet uv
	build/lowest/bin/uv pip install --quiet --python build/lowest --resolution lowest-direct \
		--editable ".[dev]"
	build/lowest/bin/pytest --numprocesses 2 --dist worksteal

wheel:  # build the wheel, install it, and run two cells outside the checkout
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/pip wheel --quiet --no-deps --wheel-dir build/dist .
	build/wheel/bin/pip install --quiet --constraint constraints.txt build/dist/*.whl
	cd build/wheel && bin/mixbench run -m none,cutmix -t digits --set digits.epochs=1

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --quiet .github

check: lint test  # the gate

fix: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/ready  # fill in what the pages take from the program
	$(BIN)/python docs/build.py

docs-site:  # the documentation as a site with search, in site/docs
	$(PYTHON) -m venv build/docs
	build/docs/bin/pip install --quiet --requirement docs/requirements.txt
	NO_MKDOCS_2_WARNING=1 build/docs/bin/mkdocs build --quiet

schema: .venv/ready
	$(BIN)/python -c 'from mixbench.records.schema import schema_text; print(schema_text(), end="")' \
		> leaderboards/record.schema.json

clean:
	rm -rf .venv .mixbench build *.egg-info

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("mixbench needs Python 3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@
