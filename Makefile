# Everything sets itself up in .venv on a machine that has Python 3.11 or newer, pip and make.
#
#   make demo        pull nano and ask it about text, pictures and sounds
#   make test        what CI runs: format, lint, types, tests (needs no GPU; fetches packages on first use)
#   make test-slow   full-size checks: 20 GiB of memory, 25 GB of disk, half an hour
#   make format      rewrite the sources in the project's style
#   make nano        train nano's vision and speech from packages to packs: hours on two cores; go on with the same
#                    command; with TRIAL=1 a rehearsal of all its commands, in build/trial; sooner done on an Intel
#                    processor that has AVX-512 but no AMX with OPTIONS='--dtype float32 --rounded-base'
#   make nano-long   train the packs of the package further: four hours on two cores

PYTHON ?= python3
BIN := .venv/bin
KERNELS := CMakeLists.txt $(wildcard src/phi4/kernels/cpp/*)

.PHONY: demo test test-slow format clean nano nano-long

# Where `make nano` keeps data, runs and packs. What a rehearsal makes must not be taken for the real thing.
NANO ?= $(if $(TRIAL),build/trial,build/nano)
DATA := $(NANO)/data
RUNS := $(NANO)/runs
TRAIN = $(BIN)/phi4 train $(1) --model nano --data $(DATA) --out $(@D) --resume $(if $(TRIAL),--steps 3) \
	$(OPTIONS)
TOWER = $(BIN)/python -m recipes.nano.$(1) --data $(DATA) --pack $< --out $@ $(if $(TRIAL),--steps 3)
EVALUATE = $(BIN)/python -m recipes.nano.evaluate --data $(DATA) --out $@ $(if $(TRIAL),--limit 2)

demo: .venv/runtime-installed
	$(BIN)/python examples/demo.py

test: .venv/dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
# Two workers share the cores: with one thread each, none waits for a turn of the other's. Threads that a test asks for
# sleep at once when they wait, for the same reason.
	OMP_NUM_THREADS=1 GOMP_SPINCOUNT=0 $(BIN)/pytest -n 2 -m "not slow"

test-slow: .venv/slow-installed
	$(BIN)/pytest -m slow

format: .venv/dev-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "phi4 needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/runtime-installed: .venv/bin/pip pyproject.toml constraints.txt $(KERNELS)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/dev-installed: .venv/bin/pip pyproject.toml constraints.txt $(KERNELS)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,nano]'
	@touch $@ .venv/runtime-installed

.venv/slow-installed: .venv/dev-installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,nano,ray]'
	@touch $@

# Each run's pack is the next one's beginning. A stage that was interrupted goes on from its last checkpoint.
nano: $(NANO)/results.json

# It needs an environment, but one that was set up anew is no reason to train again.
$(DATA)/built: | .venv/dev-installed
	$(BIN)/python -m recipes.nano.build pictures --out $(DATA)
	$(BIN)/python -m recipes.nano.build speech --out $(DATA) $(if $(TRIAL),--quick)
	@touch $@

$(RUNS)/begin/vision.safetensors $(RUNS)/begin/speech.safetensors &: $(DATA)/built
	$(BIN)/python -m recipes.nano.begin --data $(DATA) --out $(RUNS)/begin

$(DATA)/guide.safetensors: $(DATA)/built
	$(BIN)/python -m recipes.nano.guide --data $(DATA) --out $@ $(if $(TRIAL),--steps 6)

$(RUNS)/vision-pretrain/vision.safetensors: $(RUNS)/begin/vision.safetensors $(DATA)/guide.safetensors
	$(call TRAIN,recipes/nano_vision.py:pretrain) --pack $<

$(RUNS)/vision-read/vision.safetensors: $(RUNS)/vision-pretrain/vision.safetensors
	$(call TRAIN,recipes/nano_vision.py:read) --pack $<

$(RUNS)/vision-practise/vision.safetensors: $(RUNS)/vision-read/vision.safetensors
	$(call TRAIN,recipes/nano_vision.py:practise) --pack $<

$(RUNS)/vision-bridge/vision.safetensors: $(RUNS)/vision-practise/vision.safetensors
	$(call TRAIN,recipes/nano_vision.py:bridge) --pack $<

$(RUNS)/vision-ground/vision.safetensors: $(RUNS)/vision-bridge/vision.safetensors
	$(call TRAIN,recipes/nano_vision.py:ground) --pack $<

$(RUNS)/vision-name/vision.safetensors: $(RUNS)/vision-ground/vision.safetensors
	$(call TRAIN,recipes/nano_vision.py:name) --pack $<

$(RUNS)/vision-letters/vision.safetensors: $(RUNS)/vision-name/vision.safetensors
	$(call TRAIN,recipes/nano_vision.py:letters) --pack $<

$(RUNS)/vision-gather/vision.safetensors: $(RUNS)/vision-letters/vision.safetensors
	$(call TOWER,gather)

$(RUNS)/vision-align/vision.safetensors: $(RUNS)/vision-gather/vision.safetensors
	$(call TRAIN,recipes/nano_vision.py:align) --pack $<

$(RUNS)/vision-joint/vision.safetensors: $(RUNS)/vision-align/vision.safetensors
	$(call TRAIN,recipes/nano_vision.py:joint) --pack $<

$(RUNS)/vision-tune/vision.safetensors: $(RUNS)/vision-joint/vision.safetensors
	$(call TRAIN,recipes/nano_vision.py:tune) --pack $<

$(RUNS)/vision-many/vision.safetensors: $(RUNS)/vision-tune/vision.safetensors
	$(call TRAIN,recipes/nano_vision.py:many) --pack $<

$(RUNS)/speech-pretrain/speech.safetensors: $(RUNS)/begin/speech.safetensors
	$(call TRAIN,recipes/nano_speech.py:pretrain) --pack $<

$(RUNS)/speech-harden/speech.safetensors: $(RUNS)/speech-pretrain/speech.safetensors
	$(call TRAIN,recipes/nano_speech.py:harden) --pack $<

$(RUNS)/speech-practise/speech.safetensors: $(RUNS)/speech-harden/speech.safetensors
	$(call TRAIN,recipes/nano_speech.py:practise) --pack $<

$(RUNS)/speech-bridge/speech.safetensors: $(RUNS)/speech-practise/speech.safetensors
	$(call TRAIN,recipes/nano_speech.py:bridge) --pack $<

$(RUNS)/speech-ground/speech.safetensors: $(RUNS)/speech-bridge/speech.safetensors
	$(call TRAIN,recipes/nano_speech.py:ground) --pack $<

$(RUNS)/speech-align/speech.safetensors: $(RUNS)/speech-ground/speech.safetensors
	$(call TRAIN,recipes/nano_speech.py:align) --pack $<

$(RUNS)/speech-instruct/speech.safetensors: $(RUNS)/speech-align/speech.safetensors
	$(call TRAIN,recipes/nano_speech.py:instruct) --pack $<

$(RUNS)/joint/vision.safetensors $(RUNS)/joint/speech.safetensors &: \
		$(RUNS)/vision-many/vision.safetensors $(RUNS)/speech-instruct/speech.safetensors
	$(call TRAIN,recipes/nano_joint.py:joint) $(addprefix --pack ,$^)

$(RUNS)/sharpen/vision.safetensors: $(RUNS)/joint/vision.safetensors
	$(call TOWER,sharpen)

$(RUNS)/settle/vision.safetensors: $(RUNS)/sharpen/vision.safetensors
	$(call TOWER,settle)

$(RUNS)/tell/vision.safetensors: $(RUNS)/settle/vision.safetensors
	$(call TOWER,tell)

$(RUNS)/words/vision.safetensors: $(RUNS)/tell/vision.safetensors $(RUNS)/joint/speech.safetensors
	$(call TRAIN,recipes/nano_joint.py:words) $(addprefix --pack ,$^)

$(NANO)/results.json: $(RUNS)/words/vision.safetensors $(RUNS)/joint/speech.safetensors
	$(BIN)/python -m recipes.nano.report --runs $(RUNS) --out $(NANO)/curves.svg
	$(EVALUATE) $(addprefix --pack ,$^)

# The packs that come with the package are the beginning. Runs that began with others are refused, not gone on with.
SHIPPED := src/phi4/checkpoint/nano_packs

nano-long: $(NANO)/long-results.json

$(RUNS)/long-hear/speech.safetensors: $(SHIPPED)/speech.safetensors $(DATA)/built
	$(call TRAIN,recipes/nano_long.py:hear) --pack $<

$(RUNS)/long-instruct/speech.safetensors: $(RUNS)/long-hear/speech.safetensors
	$(call TRAIN,recipes/nano_long.py:instruct) --pack $<

$(RUNS)/long-joint/vision.safetensors $(RUNS)/long-joint/speech.safetensors &: \
		$(SHIPPED)/vision.safetensors $(RUNS)/long-instruct/speech.safetensors
	$(call TRAIN,recipes/nano_long.py:joint) $(addprefix --pack ,$^)

$(RUNS)/long-sharpen/vision.safetensors: $(RUNS)/long-joint/vision.safetensors
	$(call TOWER,sharpen)

$(RUNS)/long-settle/vision.safetensors: $(RUNS)/long-sharpen/vision.safetensors
	$(call TOWER,settle)

$(RUNS)/long-tell/vision.safetensors: $(RUNS)/long-settle/vision.safetensors
	$(call TOWER,tell)

$(RUNS)/long-words/vision.safetensors: $(RUNS)/long-tell/vision.safetensors $(RUNS)/long-joint/speech.safetensors
	$(call TRAIN,recipes/nano_long.py:words) $(addprefix --pack ,$^)

$(NANO)/long-results.json: $(RUNS)/long-words/vision.safetensors $(RUNS)/long-joint/speech.safetensors
	$(BIN)/python -m recipes.nano.report --runs $(RUNS) --out $(NANO)/long-curves.svg
	$(EVALUATE) $(addprefix --pack ,$^)
