# Everything sets itself up: the first target that runs makes .venv (Python 3.11+, about 7 GB, some minutes; with
# TORCH=cpu, without CUDA's libraries, about 2 GB; with LOCKED=1 each package by the hash in .ci/requirements.lock).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# a wheel such as 2.9.0+cpu is taken before 2.9.0
WHEELS := $(if $(filter cpu,$(TORCH)),--extra-index-url https://download.pytorch.org/whl/cpu)
# where a container sets it, each of hundreds of processes would compile all of our modules anew
unexport PYTHONDONTWRITEBYTECODE
ONE_THREAD := OMP_NUM_THREADS=1
.DEFAULT_GOAL := help
.PHONY: help setup lock fuzz demo lint types check test all-tests test-cluster check-k8s chart kubeflow results bench test-gpu bench-gpu docs clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## make .venv with Tessera and its tools; TORCH=cpu: without CUDA; LOCKED=1: as CI, by hashes

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
		$(if $(LOCKED),--require-hashes --no-deps -r .ci/requirements.lock,-c constraints.txt $(WHEELS) -e '.[dev]')
	$(if $(LOCKED),$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .)
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true  # pip does it on one core; some files are of other Pythons
	@touch $@

# of PyTorch's own index of wheels, which the image takes them from
LEFT_OUT := torch torchvision cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti \
    nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand \
    nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink \
    nvidia-nvshmem-cu13 nvidia-nvtx triton
COMPILE := uv pip compile --quiet pyproject.toml -c constraints.txt --generate-hashes --no-annotate --custom-compile-command "make lock" \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28
lock: ## hashes of what CI and the image install, by uv; after dependencies have changed
	$(COMPILE) --extra dev -o .ci/requirements.lock
	$(COMPILE) --extra server $(addprefix --no-emit-package=,$(LEFT_OUT)) -o k8s/requirements.lock

fuzz: setup ## five minutes of drawn tables, folders, images and run folders: what fails is drawn first the next time
	$(ONE_THREAD) FUZZ_SECONDS=300 $(BIN)/python -m pytest -m fuzz

demo: setup ## search, train and report on scikit-learn's digits: about two minutes
	$(BIN)/python workflows/tune_hsan.py --dataset digits --trials 4 --epochs 120 --first-seed 5 --seeds 3 --no-prune \
		--name demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

check: lint types ## lint, types and unit tests: some minutes
	$(ONE_THREAD) $(BIN)/python -m pytest -m 'not slow and not cluster and not fuzz' -n 2 --dist loadfile

test: lint types all-tests ## lint, types and all tests, those too that start servers, kill runs and search with Ray; with -j2: at once

all-tests: setup
	$(ONE_THREAD) $(BIN)/python -m pytest -m 'not cluster and not fuzz' -n 2 --dist loadfile --no-loadscope-reorder

test-cluster: setup ## nodes of a Ray cluster that die in mid-run, Kubernetes' Pods in namespaces: as root; KUBE_APISERVER=URL: a real server
	$(ONE_THREAD) KUBE_APISERVER=$(KUBE_APISERVER) $(BIN)/python -m pytest -v --durations=0 -m cluster
	$(ONE_THREAD) KUBE_APISERVER=$(KUBE_APISERVER) $(BIN)/python -m pytest tests/k8s/test_apply.py

# an extra's packages without Tessera's own, which their pins would contradict: $(call extra,NAME,VENV)
define extra
	$(PYTHON) -m venv $(2)
	$(2)/bin/python k8s/requirements.py --only $(1) > $(2)/wanted
	$(2)/bin/python -m pip install --quiet --disable-pip-version-check -r $(2)/wanted pytest
	@touch $(2)/.ready
endef

.venv-k8s/.ready: pyproject.toml
	$(call extra,k8s,.venv-k8s)

.venv-kubeflow/.ready: pyproject.toml
	$(call extra,kubeflow,.venv-kubeflow)

kubeflow: .venv-kubeflow/.ready ## compile the pipeline for Kubeflow (k8s/kubeflow/pipeline.yaml)
	.venv-kubeflow/bin/python k8s/kubeflow/pipeline.py

check-k8s: .venv-k8s/.ready ## every manifest: our rules, kubernetes-validate --strict, checkov
	.venv-k8s/bin/python k8s/check.py --tools

CHART ?= k8s/chart
chart: ## the objects of the Helm chart (k8s/chart/files), from the overlays
	mkdir -p $(CHART)/files
	for each in k8s/overlays/*/; do kubectl kustomize $$each > $(CHART)/files/$$(basename $$each).yaml || exit 1; done

results: setup ## train what the tables of results lack, hours the first time, and write the tables
	$(ONE_THREAD) $(BIN)/python tests/bench/results.py

bench: setup ## speed and memory against dense forms and the published code, large graphs: about half an hour alone
	$(BIN)/python tests/bench/loss.py
	$(BIN)/python tests/bench/train.py
	$(BIN)/python tests/bench/workers.py
	$(BIN)/python tests/bench/scale.py
	$(BIN)/python tests/bench/partition.py
	$(BIN)/python tests/bench/sampling.py
	$(BIN)/python tests/bench/dry_run.py
	$(BIN)/python tests/bench/checkpoint.py
	$(BIN)/python tests/bench/caegcn.py
	$(BIN)/python tests/bench/images.py
	$(BIN)/python tests/bench/large_images.py
	$(BIN)/python tests/bench/hadis.py
	$(BIN)/python tests/bench/twhin.py

test-gpu: setup ## every method on this machine's GPU against the CPU: under 6 minutes; skips where there is none
	@if $(BIN)/python -c 'import torch, sys; sys.exit(not torch.cuda.is_available())'; \
	then $(BIN)/python -m pytest tests/accelerator/test_cuda.py; \
	else echo "no GPU here: make test-gpu has nothing to test"; fi

bench-gpu: setup ## epochs on this machine's GPU: seconds, memory, share of its matmul peak
	$(BIN)/python tests/bench/gpu.py

docs: setup ## write the page of settings anew, and the site of all pages (build/site/index.html)
	$(BIN)/python workflows/docs.py > workflows/SETTINGS.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(WHEELS) -e '.[dev,docs]'
	rm -rf build/pages
	$(BIN)/python workflows/docs.py build/pages
	cp workflows/site.yml build/mkdocs.yml
	PYTHONPATH=. $(BIN)/python -m mkdocs build --quiet -f build/mkdocs.yml

clean: ## remove .venv and caches; results in runs/ stay
	rm -rf $(VENV) .venv-k8s .venv-kubeflow .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
