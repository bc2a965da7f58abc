# make demo   build, train and compare live, and write out/demo/report.html
# make test   build the wheel, install it in a fresh environment, lint, type-check, test
# make fuzz   fuzz the border of every compiled function for FUZZ_SECONDS (600), one after another; needs clang with libFuzzer
#
# All need python >= 3.10, g++ and make, and set up everything else in folders of their own. PYTHON and TORCH can be overridden:
#   make test PYTHON=python3.12 TORCH="torch==2.8.0"
# DEMO_ARGUMENTS and PYTEST_ARGUMENTS are handed on.
PYTHON ?= python3
TORCH ?= torch==2.13.0
SEED ?= 0
CLANG ?= clang++
FUZZ_SECONDS ?= 600
FUZZ_FUNCTIONS ?= build_topology $(foreach op,rasterize interpolate render antialias vertex_normals sh_shading neighbor_min masked_photometric \
	outlier_robust,$(op) $(op)_backward)

# Rebuilt whenever the package could have changed; the environment of `make demo` is kept, that of `make test` is always fresh.
SOURCES := pyproject.toml CMakeLists.txt $(shell find cmake csrc focus -type f -not -name '*.so' -not -name '*.pyc')

.PHONY: demo test fuzz lint format wheel clean

demo: .venv/installed
	.venv/bin/focus demo --out out/demo --seed $(SEED) $(DEMO_ARGUMENTS)

.venv/installed: $(SOURCES)
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --upgrade pip
	.venv/bin/pip install --quiet "$(TORCH)"
	.venv/bin/pip install --quiet ".[all]"
	touch $@

test: lint
	FOCUS_REQUIRE_EMULATION=1 build/venv/bin/pytest $(PYTEST_ARGUMENTS)

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

wheel: build/wheel/ready

build/wheel/ready: $(SOURCES)
	rm -rf build/wheel && mkdir -p build/wheel
	$(PYTHON) -m venv --clear build/pip
	build/pip/bin/pip install --quiet --upgrade pip
	build/pip/bin/pip wheel --quiet --no-deps --wheel-dir build/wheel .
	touch $@

build/venv/ready: build/wheel/ready
	$(PYTHON) -m venv --clear build/venv
	build/venv/bin/pip install --quiet --upgrade pip
	build/venv/bin/pip install --quiet "$(TORCH)"
	build/venv/bin/pip install --quiet "$$(echo build/wheel/*.whl)[dev]"
	touch $@

lint: build/venv/ready
	build/venv/bin/ruff check .
	build/venv/bin/ruff format --check .
	build/venv/bin/mypy
	build/venv/bin/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.cu' '*.h')

format: build/venv/ready
	build/venv/bin/ruff check --fix .
	build/venv/bin/ruff format .
	build/venv/bin/clang-format -i $$(git ls-files '*.cpp' '*.cu' '*.h')

clean:
	rm -rf .venv build dist out
