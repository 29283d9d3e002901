# unetserve. `make help` lists the targets; README.md says which two a newcomer needs.

SANITIZER ?=
empty     :=
space     := $(empty) $(empty)
comma     := ,
BUILD     ?= build$(if $(SANITIZER),-$(subst $(comma),-,$(SANITIZER)))
PREFIX    ?= /usr/local
DESTDIR   ?=
PYTHON    ?= /usr/bin/python3
MINUTES   ?= 1
JOBS      ?= $(shell nproc)

ifeq ($(origin CC),default)
CC := gcc
endif
OPTIMIZE  ?= -O2 -g
WARNINGS  := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
# "address" brings UBSan along: they run together, and findings end the process.
# Fences: TSan does not see them, and gcc says so.
SANITIZE  := $(if $(SANITIZER),-fsanitize=$(if $(filter address,$(SANITIZER)),address$(comma)undefined,$(SANITIZER)) -fno-sanitize-recover=all -fno-omit-frame-pointer) \
	     $(if $(filter thread,$(SANITIZER)),-Wno-error=tsan)
# What a distribution builds its servers with; sanitizers have their own checks.
HARDEN    := -fstack-protector-strong -fstack-clash-protection -fcf-protection $(if $(SANITIZER)$(findstring -fsanitize,$(CFLAGS))$(findstring -O0,$(OPTIMIZE)),,-D_FORTIFY_SOURCE=2)
HARDEN_LINK := -Wl,-z,relro,-z,now
# No a * b + c is fused unless it is written so: results must not depend on the compiler (gcc's -std=c11 does the same, clang does not).
COMPILE    = $(CC) -std=c11 -D_GNU_SOURCE -Iinclude -I. $(WARNINGS) $(OPTIMIZE) -ffp-contract=off $(SANITIZE) $(HARDEN) -fPIC -fvisibility=hidden \
	     -DUNETSERVE_VERSION='"$(VERSION)"' -DUNETSERVE_PREFIX='"$(PREFIX)"' $(CUDA_FLAGS) $(CFLAGS) -MMD -MP
LINK       = $(CC) $(SANITIZE) $(HARDEN_LINK) $(LDFLAGS) -Wl,--as-needed
VERSION   := 0.1.0

# V=1 shows the commands.
Q         := $(if $(V),,@)
say        = $(if $(V),,@printf '  %-4s %s\n' '$(1)' '$(2)')

# ---- rooms -----------------------------------------------------------------------------------------------------------
# The cuDNN backend is built where the toolkit and cuDNN's headers are. Its libraries are opened at run time.
CUDA       ?= /usr/local/cuda
HAVE_CUDA  := $(if $(and $(wildcard $(CUDA)/bin/nvcc),$(wildcard $(CUDA)/include/cuda.h),$(wildcard $(CUDA)/include/cudnn.h),$(shell command -v g++)),yes)
CUDA_FLAGS := $(if $(HAVE_CUDA),-DUNETSERVE_CUDNN -isystem $(CUDA)/include)

# Each room is an archive of everything but its main file, so that unit tests link what the programs link.
sources    = $(sort $(wildcard $(addsuffix /*.c,$(1))))
objects    = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

LIB        := $(filter-out lib/client/%,$(call sources,lib))
CLIENT     := $(call sources,lib/client)
GATEWAY    := $(filter-out gateway/main.c,$(call sources,gateway))
BROKER     := $(filter-out broker/main.c,$(call sources,broker))
AUTH       := $(filter-out auth/main.c,$(call sources,auth))
SUPERVISOR := $(filter-out supervisor/main.c,$(call sources,supervisor))
GPU        := $(filter-out gpu/main.c,$(call sources,gpu))
WORKER     := $(filter-out workers/main.c,$(call sources,workers))
UNET       := $(filter-out workers/models/unet/plugin.c,$(call sources,workers/models/unet workers/backends workers/backends/reference workers/backends/onednn workers/backends/amx $(if $(HAVE_CUDA),workers/backends/cudnn)))
IMAGES     := $(call sources,workers/images)
EXTENSION  := $(call sources,python/extension)
PACKAGE    := $(wildcard python/unetserve/*.py python/unetserve/*/*.py)
UNETCTL    := $(call sources,lib/client/unetctl)
EXAMPLES   := $(call sources,workers/models/examples)
AMXMODEL   := $(call sources,tests/amx)
LOAD       := $(filter-out bench/load/main.c,$(call sources,bench/load))

ARCHIVES   := lib client gateway broker auth gpu supervisor worker images unet load amxmodel
archive_lib        := $(LIB)
archive_client     := $(CLIENT)
archive_gateway    := $(GATEWAY)
archive_broker     := $(BROKER)
archive_auth       := $(AUTH)
archive_gpu        := $(GPU)
archive_supervisor := $(SUPERVISOR)
archive_worker     := $(WORKER)
archive_images     := $(IMAGES)
archive_unet       := $(UNET)
archive_load       := $(LOAD)
archive_amxmodel   := $(AMXMODEL)

PROGRAMS   := unetserve unetserve-gateway unetserve-broker unetserve-auth unetserve-gpu unetserve-worker unetctl
PLUGINS    := unet $(notdir $(EXAMPLES:.c=))
PYTHON_OUT := $(BUILD)/python/unetserve/_worker.abi3.so $(BUILD)/python/unetserve/unetserve-images.so $(PACKAGE:%=$(BUILD)/%)
OUTPUTS    := $(PYTHON_OUT) $(addprefix $(BUILD)/,$(PROGRAMS) unetserve-images.so) $(PLUGINS:%=$(BUILD)/models/%.so) \
	      $(BUILD)/libunetserve.so $(BUILD)/libunetserve.a $(BUILD)/demo/make-scene $(BUILD)/demo/make-picture $(addprefix $(BUILD)/bench/,load bare noop.so)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY:

.PHONY: all
all: deps
	@$(MAKE) --no-print-directory -j$(JOBS) outputs

.PHONY: outputs
outputs: $(OUTPUTS)
	$(if $(HAVE_CUDA),,@echo 'unetserve: built without the cuDNN backend, since there is no CUDA toolkit with cuDNN in $(CUDA)')

# What serves, without unetctl and what it needs (GDAL): for containers.
.PHONY: server install-server
server: $(addprefix $(BUILD)/,$(filter-out unetctl,$(PROGRAMS)) unetserve-images.so) $(PLUGINS:%=$(BUILD)/models/%.so)

.PHONY: deps
deps:
	@packaging/install-deps.sh build

$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(COMPILE) -c $< -o $@

# Files that sources hold by .incbin, which the compiler's dependencies do not know.
$(BUILD)/obj/gateway/docs_files.o: $(wildcard gateway/docs/*)
$(BUILD)/obj/lib/client_file.o: lib/client_file.py

# Our GPU kernels: machine code for each architecture, and PTX for later ones; a spilled register is an error. All kinds of
# builds share it.
GPU_DIR    := build/gpu
GPU_ARCHS  := 75 80 86 89 90 100 120
GPU_CODE   := $(foreach a,$(GPU_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) -gencode arch=compute_120,code=compute_120
GPU_SOURCE := workers/backends/cudnn/gpu_kernels
$(GPU_DIR)/kernels.fatbin: $(GPU_SOURCE).cu $(GPU_SOURCE).h workers/backends/cudnn/gpu_type.h
	@mkdir -p $(@D)
	$(call say,NVCC,$<)
	$(Q)$(CUDA)/bin/nvcc -std=c++17 -O3 -t2 -I. $(GPU_CODE) -fatbin -Xptxas -v,-warn-spills,-Werror -o $@.new $< 2>$(@D)/kernels.log || { cat $(@D)/kernels.log; exit 1; }
	@mv $@.new $@
$(BUILD)/obj/workers/backends/cudnn/gpu_image.o: COMPILE += -DGPU_IMAGE_FILE='"$(GPU_DIR)/kernels.fatbin"'
$(BUILD)/obj/workers/backends/cudnn/gpu_image.o: $(GPU_DIR)/kernels.fatbin

define archive_rule
$(BUILD)/$(1).a: $(call objects,$(archive_$(1)))
	$$(call say,AR,$$@)
	@rm -f $$@
	$$(Q)ar rcs $$@ $$^
endef
$(foreach a,$(ARCHIVES),$(eval $(call archive_rule,$(a))))

define program
$(call say,LINK,$@)
$(Q)$(LINK) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(1)
endef

$(BUILD)/unetserve: $(BUILD)/obj/supervisor/main.o $(BUILD)/supervisor.a $(BUILD)/lib.a
	$(call program,-lsystemd -lseccomp -linih -ljansson -lm)
# The gateway puts its own recv() and gnutls_record_recv() under libmicrohttpd's (gateway/gate_recv.c says why), so they are exported.
$(BUILD)/unetserve-gateway: $(BUILD)/obj/gateway/main.o $(BUILD)/gateway.a $(BUILD)/lib.a
	$(call program,-Wl$(comma)--export-dynamic-symbol=recv -Wl$(comma)--export-dynamic-symbol=gnutls_record_recv -lmicrohttpd -lgnutls -lzmq -lmsgpackc -lsystemd -lseccomp -linih -ljansson -lpng -lz -lzstd -lm)
$(BUILD)/unetserve-broker: $(BUILD)/obj/broker/main.o $(BUILD)/broker.a $(BUILD)/lib.a
	$(call program,-lzmq -lmsgpackc -lsystemd -lseccomp -linih -ljansson -lm)
$(BUILD)/unetserve-auth: $(BUILD)/obj/auth/main.o $(BUILD)/auth.a $(BUILD)/lib.a
	$(call program,-lcurl -lcjose -lcrypto -lsystemd -lseccomp -linih -ljansson -lm)
$(BUILD)/unetserve-gpu: $(BUILD)/obj/gpu/main.o $(BUILD)/gpu.a $(BUILD)/lib.a
	$(call program,-lsystemd -lseccomp -linih -ljansson -ldl -lm)
$(BUILD)/unetserve-worker: $(BUILD)/obj/workers/main.o $(BUILD)/worker.a $(BUILD)/lib.a
	$(call program,-lsystemd -lseccomp -linih -ljansson -ldl -lm)
$(BUILD)/unetctl: $(call objects,$(UNETCTL)) $(BUILD)/load.a $(BUILD)/client.a $(BUILD)/unet.a $(BUILD)/lib.a
	$(call program,-lgdal -lcurl -lgnutls -lzmq -lmsgpackc -ljansson -linih -lpng -lzip -lxxhash -ldnnl -ldl -lm -pthread)

$(BUILD)/models/unet.so: $(BUILD)/obj/workers/models/unet/plugin.o $(BUILD)/unet.a $(BUILD)/lib.a
	@mkdir -p $(@D)
	$(call program,-shared -ldnnl -lzip -lxxhash -ljansson -lm -pthread)
$(BUILD)/models/%.so: $(BUILD)/obj/workers/models/examples/%.o $(BUILD)/lib.a
	@mkdir -p $(@D)
	$(call program,-shared -ljansson -lm)

# What expands image files: opened by workers, linked by none of them.
$(BUILD)/unetserve-images.so: $(BUILD)/images.a $(BUILD)/lib.a
	$(call say,LINK,$@)
	$(Q)$(LINK) -shared -o $@ -Wl,--whole-archive $(BUILD)/images.a -Wl,--no-whole-archive $(BUILD)/lib.a -ltiff -lpng -ljansson -lm
$(BUILD)/python/unetserve/unetserve-images.so: $(BUILD)/unetserve-images.so
	@mkdir -p $(@D)
	@cp $< $@

# The worker inside a Python interpreter, any from 3.9 on.
PYTHON_INCLUDE = $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')
$(BUILD)/obj/python/extension/%.o: COMPILE += -DPy_LIMITED_API=0x03090000 -isystem $(PYTHON_INCLUDE)
$(BUILD)/python/unetserve/_worker.abi3.so: $(call objects,$(EXTENSION)) $(BUILD)/worker.a $(BUILD)/lib.a
	@mkdir -p $(@D)
	$(call program,-shared -lsystemd -lseccomp -linih -ljansson -ldl -lm -pthread)
$(BUILD)/python/%.py: python/%.py
	@mkdir -p $(@D)
	@cp $< $@

# Models that misbehave, for the system tests.
TEST_PLUGINS := $(patsubst tests/plugins/%.c,$(BUILD)/tests/models/%.so,$(wildcard tests/plugins/*.c))
.PHONY: test-plugins
test-plugins: $(TEST_PLUGINS) $(BUILD)/tests/amx/unet.so $(BUILD)/tests/failing_calls.so $(BUILD)/tests/nvml/libnvidia-ml.so.1 $(BUILD)/tests/nvml/libcuda.so.1
$(BUILD)/tests/amx/unet.so: $(BUILD)/obj/tests/amx/plugin/here.o $(BUILD)/obj/workers/models/unet/plugin.o $(BUILD)/amxmodel.a $(BUILD)/unet.a $(BUILD)/lib.a
	@mkdir -p $(@D)
	$(call program,-shared -ldnnl -lzip -lxxhash -ljansson -lm -pthread)
# NVIDIA's driver as far as it is asked about GPUs, and one that is there but does nothing; found by LD_LIBRARY_PATH.
$(BUILD)/tests/nvml/libnvidia-ml.so.1: tests/gpu/double/fake_nvml.c gpu/nvml.h
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -I. $(WARNINGS) -O1 -g -fPIC -fvisibility=hidden -shared -o $@ $< -ljansson
$(BUILD)/tests/nvml/libcuda.so.1:
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) -shared -nostdlib -o $@ -x c /dev/null
# For LD_PRELOAD; without the sanitizers, which have a malloc of their own.
$(BUILD)/tests/failing_calls.so: tests/faults/failing_calls.c
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE $(WARNINGS) -O1 -g -fno-builtin -fPIC -fvisibility=hidden -shared -o $@ $< -ldl
$(BUILD)/tests/models/%.so: $(BUILD)/obj/tests/plugins/%.o
	@mkdir -p $(@D)
	$(call program,-shared)

# Its other name is the one that programs ask for which are linked to it.
$(BUILD)/libunetserve.so: $(BUILD)/client.a $(BUILD)/lib.a
	$(call say,LINK,$@)
	$(Q)$(LINK) -shared -Wl,-soname,libunetserve.so.0 -o $@ -Wl,--whole-archive $(BUILD)/client.a -Wl,--no-whole-archive $(BUILD)/lib.a -lzmq -lmsgpackc -lm
	@ln -sf $(@F) $@.0
$(BUILD)/libunetserve.a: $(call objects,$(CLIENT)) $(call objects,$(LIB))
	$(call say,AR,$@)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(BUILD)/demo/make-scene: $(BUILD)/obj/packaging/demo/make_scene.o $(BUILD)/lib.a
	@mkdir -p $(@D)
	$(call program,-ljansson -lm)
$(BUILD)/demo/make-picture: $(BUILD)/obj/packaging/demo/make_picture.o $(BUILD)/obj/packaging/demo/letters.o $(BUILD)/lib.a
	@mkdir -p $(@D)
	$(call program,-lpng -lm)

$(BUILD)/bench/forward: $(call objects,$(wildcard bench/*.c)) $(BUILD)/unet.a $(BUILD)/lib.a
	@mkdir -p $(@D)
	$(call program,-ldnnl -lzip -lxxhash -ljansson -lm -pthread)
$(BUILD)/bench/amx-cost: $(BUILD)/obj/bench/amx/cost.o $(BUILD)/obj/bench/random_network.o $(BUILD)/amxmodel.a $(BUILD)/unet.a $(BUILD)/lib.a
	@mkdir -p $(@D)
	$(call program,-ldnnl -lzip -lxxhash -ljansson -lm -pthread)
$(BUILD)/bench/winograd: $(BUILD)/obj/bench/winograd/winograd.o $(BUILD)/unet.a $(BUILD)/lib.a
	@mkdir -p $(@D)
	$(call program,-ldnnl -lzip -lxxhash -ljansson -lm -pthread)
$(BUILD)/bench/counts: $(call objects,$(wildcard bench/counts/*.c)) $(BUILD)/gateway.a $(BUILD)/broker.a $(BUILD)/lib.a
	@mkdir -p $(@D)
	$(call program,-lmicrohttpd -lgnutls -lmsgpackc -lsystemd -linih -ljansson -lpng -lz -lm)
$(BUILD)/bench/load: $(BUILD)/obj/bench/load/main.o $(BUILD)/load.a
	@mkdir -p $(@D)
	$(call program,-ljansson -lm)
$(BUILD)/bench/bare: $(BUILD)/obj/bench/peers/bare.o
	@mkdir -p $(@D)
	$(call program,-lmicrohttpd)
$(BUILD)/bench/broker-rate: $(BUILD)/obj/bench/broker/rate.o $(BUILD)/broker.a $(BUILD)/gateway.a $(BUILD)/lib.a
	@mkdir -p $(@D)
	$(call program,$(ALL_LIBS))
$(BUILD)/bench/noop.so: $(BUILD)/obj/bench/plugins/noop.o
	@mkdir -p $(@D)
	$(call program,-shared)

# ---- tests -----------------------------------------------------------------------------------------------------------
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(filter-out $(if $(HAVE_CUDA),,tests/unit/test_gpu_%),$(wildcard tests/unit/test_*.c)))
FUZZERS    := $(patsubst tests/fuzz/fuzz_%.c,%,$(filter-out $(if $(HAVE_CUDA),,tests/fuzz/fuzz_gpu_%),$(wildcard tests/fuzz/fuzz_*.c)))
EVERYTHING := $(ARCHIVES:%=$(BUILD)/%.a)
ALL_LIBS   := -ltiff -lz -lzstd -lseccomp -lmicrohttpd -lgnutls -lzmq -lmsgpackc -lsystemd -linih -ljansson -lpng -lzip -lxxhash -ldnnl -lcurl -lcjose -lcrypto -ldl -lm -pthread

$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(EVERYTHING)
	@mkdir -p $(@D)
	$(call program,$(ALL_LIBS) -lcmocka)

# Our own code's calls go through that test's functions, which let them fail; the libraries' do not.
FAILING := malloc calloc realloc reallocarray aligned_alloc strdup strndup open_memstream fmemopen mmap memfd_create socket \
	   eventfd pipe2 open fopen opendir dup
$(BUILD)/tests/test_failing_calls: LINK += $(FAILING:%=-Wl,--wrap=%)

# Every fuzz target also replays its corpus under the ordinary compiler, as a test.
$(BUILD)/tests/corpus_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(BUILD)/obj/tests/fuzz/replay.o $(EVERYTHING)
	@mkdir -p $(@D)
	$(call program,$(ALL_LIBS))

.PHONY: test test-deps unit unit-qemu corpus system
test: test-deps
	@$(MAKE) --no-print-directory -j$(JOBS) outputs unit-programs
	@$(MAKE) --no-print-directory unit corpus system

test-deps:
	@packaging/install-deps.sh build test

# For pip, into any virtual environment; the programs are found in PATH.
.PHONY: wheel
WHEEL := $(BUILD)/wheel/unetserve-$(VERSION)-cp39-abi3-linux_x86_64.whl
wheel: $(WHEEL)
$(WHEEL): $(PYTHON_OUT) packaging/wheel.sh
	@packaging/install-deps.sh wheel
	@BUILD=$(BUILD) VERSION=$(VERSION) PYTHON=$(PYTHON) packaging/wheel.sh

.PHONY: unit-programs
unit-programs: $(UNIT_TESTS) $(FUZZERS:%=$(BUILD)/tests/corpus_%)

unit: unit-programs
	@JOBS=$(JOBS) tests/run-unit.sh $(UNIT_TESTS)

# The unit tests on a processor of 2008: whatever needs more than CPUID offers ends in SIGILL. All of them run there:
# memfds, seals, eventfds and shared atomics work under user-mode emulation too. The dispatched kernels
# (workers/backends/onednn/onednn_rows_*.c) and oneDNN fall back to SSE. tests/system/test_old_processor.py serves a tile there.
unit-qemu: test-deps
	@$(MAKE) --no-print-directory -j$(JOBS) unit-programs
	@JOBS=$(JOBS) EMULATOR="qemu-x86_64 -cpu Nehalem" tests/run-unit.sh $(UNIT_TESTS)

corpus: unit-programs
	@set -e; for f in $(FUZZERS); do $(BUILD)/tests/corpus_$$f tests/fuzz/corpus/$$f/*; done

# What the autoscaler costs and how many requests are late, by the time that a worker takes to start.
.PHONY: autoscaler-table
autoscaler-table: $(BUILD)/tests/test_autoscale
	@$< --table

# Checkers that Debian does not have; tests that want one and do not find it are skipped and say so.
.PHONY: checkers
checkers: build/checkers/.done
build/checkers/.done: tests/requirements.txt
	@$(PYTHON) -m venv build/checkers && build/checkers/bin/pip install -q --disable-pip-version-check -r $< && touch $@

# The tests of whole systems wait more than they compute: more of them run at a time than there are cores, where pytest-xdist
# is. PYTEST='-n 0': one after the other.
TEST_JOBS ?= $(shell expr $(JOBS) + 2)
system: outputs test-plugins wheel
	@UNETSERVE_BUILD="$(abspath $(BUILD))" PYTHON=$(PYTHON) tests/run-system.sh $(abspath $(BUILD))/tests/pytest-cache $(TEST_JOBS) tests/system $(PYTEST)

# ---- GPU -------------------------------------------------------------------------------------------------------------
# The cuDNN backend on a double of a GPU (tests/gpu/double/double.h), then whole workers on it through HTTP.
.PHONY: test-gpu-double
DOUBLE := build/gpu/double
DOUBLE_COMPILE = gcc -std=c11 -D_GNU_SOURCE -I. -Itests/gpu/double -isystem $(CUDA)/include -pthread -Wall -Wextra -Werror -O3 -ffast-math -fno-finite-math-only -g -fPIC -fvisibility=hidden
# The kernels as nvcc reads them, and each access to memory told (device_kernels.cc).
$(DOUBLE)/kernels.o: tests/gpu/double/device_kernels.cc tests/gpu/double/device.h tests/gpu/double/double.h tests/gpu/double/words/cuda_fp16.h $(GPU_SOURCE).cu $(GPU_SOURCE).h
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)g++ -std=c++17 -I. -Itests/gpu/double -Itests/gpu/double/words -Wall -Wextra -Werror -O2 -g -fPIC -fvisibility=hidden -fsanitize=thread --param tsan-instrument-func-entry-exit=0 $(CFLAGS) -c $< -o $@
DOUBLE_PARTS := fake_cuda fake_calls device_memory device_streams device_half fake_absent
$(DOUBLE)/%.o: tests/gpu/double/%.c tests/gpu/double/device.h tests/gpu/double/double.h tests/gpu/double/fake_calls.h $(GPU_SOURCE).h
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(DOUBLE_COMPILE) $(CFLAGS) -c $< -o $@
$(DOUBLE)/libcuda.so.1: $(DOUBLE_PARTS:%=$(DOUBLE)/%.o) $(DOUBLE)/kernels.o
	$(call say,LINK,$@)
	$(Q)gcc -shared -pthread -Wl,-soname,libcuda.so.1 -o $@ $^ -ljansson -ldl
$(DOUBLE)/libcudnn.so.9: tests/gpu/double/fake_cudnn.c tests/gpu/double/double.h
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(DOUBLE_COMPILE) -DREAL_CUDNN='"$(CUDA)/lib64/libcudnn.so.9"' -shared -o $@ $< -ljansson -lm -ldl
$(BUILD)/bench/gpu_forward: $(BUILD)/obj/bench/gpu/gpu_forward.o $(BUILD)/obj/bench/gpu/gpu_peaks.o $(BUILD)/unet.a $(BUILD)/lib.a
	@mkdir -p $(@D)
	$(call program,-ldnnl -lzip -lxxhash -ljansson -ldl -lm -pthread)
$(BUILD)/gpu/%: $(BUILD)/obj/tests/gpu/%.o $(BUILD)/unet.a $(BUILD)/lib.a
	@mkdir -p $(@D)
	$(call program,-ldnnl -lzip -lxxhash -ljansson -lcmocka -ldl -lm -pthread)

test-gpu-double: test-deps
ifeq ($(HAVE_CUDA),)
	@echo 'unetserve: no CUDA toolkit with cuDNN in $(CUDA): the cuDNN backend is not built, so not tested either'
else
	@$(MAKE) --no-print-directory -j$(JOBS) outputs gpu-programs $(DOUBLE)/libcuda.so.1 $(DOUBLE)/libcudnn.so.9
	@UNETSERVE_BUILD="$(abspath $(BUILD))" $(PYTHON) -m pytest -q tests/gpu $(PYTEST)
endif

# The same tests, and compute-sanitizer's, on the GPUs of this machine (status 77: there is none); and how fast they are (GPU_BENCH:
# more words for bench/gpu/run.py).
.PHONY: test-gpu bench-gpu gpu-programs
GPU_ROUNDS ?= 5
GPU_BENCH  ?=
GPU_TESTS  := test_gpu test_copies test_tuning test_failures test_networks test_kernels test_convs
ifeq ($(HAVE_CUDA),)
test-gpu bench-gpu:
	@echo 'unetserve: no CUDA toolkit with cuDNN in $(CUDA): the cuDNN backend is not built'
	@exit 77
else
gpu-programs: outputs $(GPU_TESTS:%=$(BUILD)/gpu/%) $(BUILD)/bench/gpu_forward
test-gpu: test-deps
	@$(MAKE) --no-print-directory -j$(JOBS) gpu-programs
	@UNETSERVE_BUILD="$(abspath $(BUILD))" PYTHON=$(PYTHON) CUDA=$(CUDA) tests/gpu/on_device.sh
bench-gpu: test-deps
	@$(MAKE) --no-print-directory -j$(JOBS) gpu-programs
	@BUILD=$(BUILD) $(PYTHON) bench/gpu/run.py --rounds $(GPU_ROUNDS) $(GPU_BENCH)
endif

# Bugs planted in a copy of the backend: each must be found by its tests. More than an hour; BUGS=WORD: those that have it in their name.
.PHONY: test-gpu-planted
BUGS ?=
ifeq ($(HAVE_CUDA),)
test-gpu-planted:
	@echo 'unetserve: no CUDA toolkit with cuDNN in $(CUDA): the cuDNN backend is not built, so no bugs are planted in it either'
else
test-gpu-planted: test-deps $(GPU_DIR)/kernels.fatbin
	@$(PYTHON) tests/gpu/planted.py --only "$(BUGS)"
endif

# The table of our kernels in docs/gpu.md, from this build; the bytes are planned for the 31M-parameter network by the real cuDNN.
.PHONY: gpu-kernels-report
gpu-kernels-report: outputs $(GPU_DIR)/kernels.fatbin
	@$(PYTHON) bench/random_unet.py $(GPU_DIR)/unet31m.safetensors
	@$(BUILD)/unetctl plan $(GPU_DIR)/unet31m.safetensors --device-props tests/gpu/devices/h100.json --json >$(GPU_DIR)/plan31m.json
	@$(PYTHON) tests/gpu/kernel_report.py $(GPU_DIR)/kernels.log --plan $(GPU_DIR)/plan31m.json --write docs/gpu.md

# ---- faults ----------------------------------------------------------------------------------------------------------
# Builds the container image from what unetctl dockerize writes, and runs it: two minutes, as root.
.PHONY: test-container
test-container: test-deps
	@packaging/install-deps.sh container
	@$(MAKE) --no-print-directory -j$(JOBS) outputs
	@UNETSERVE_TEST_CONTAINER=1 UNETSERVE_BUILD="$(abspath $(BUILD))" $(PYTHON) -m pytest -q tests/system/test_container.py

.PHONY: chaos soak recovery
SEED ?=
chaos: test-deps
	@$(MAKE) --no-print-directory -j$(JOBS) outputs test-plugins
	@UNETSERVE_BUILD="$(abspath $(BUILD))" $(PYTHON) tests/chaos/chaos.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(SUPERVISOR),--supervisor)

soak: test-deps
	@$(MAKE) --no-print-directory -j$(JOBS) outputs test-plugins
	@UNETSERVE_BUILD="$(abspath $(BUILD))" $(PYTHON) tests/chaos/soak.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

recovery: test-deps
	@$(MAKE) --no-print-directory -j$(JOBS) outputs test-plugins
	@UNETSERVE_BUILD="$(abspath $(BUILD))" $(PYTHON) tests/chaos/recovery.py

# ---- the slot protocol under spin ------------------------------------------------------------------------------------
.PHONY: model
SIZE ?= large
model:
	@packaging/install-deps.sh build model
	@$(PYTHON) tests/model/run.py $(SIZE)

# ---- fuzzing (clang) -------------------------------------------------------------------------------------------------
.PHONY: fuzz fuzz-build fuzz-programs
FUZZ_SECONDS ?= $(shell expr $(MINUTES) \* 60)
fuzz:
	@packaging/install-deps.sh build lint
	@$(MAKE) --no-print-directory fuzz-build
	@tests/fuzz/run.sh build-fuzz/fuzz $(FUZZ_SECONDS) $(JOBS) $(FUZZERS)

fuzz-build:
	@$(MAKE) --no-print-directory -j$(JOBS) BUILD=build-fuzz CC=clang OPTIMIZE="-O1 -g" \
	  CFLAGS="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all" LDFLAGS="-fsanitize=fuzzer,address,undefined" fuzz-programs

fuzz-programs: $(FUZZERS:%=$(BUILD)/fuzz/%)
# As in the gateway: libmicrohttpd must find our recv.
$(BUILD)/fuzz/connection $(BUILD)/tests/corpus_connection: LINK += -Wl,--export-dynamic-symbol=recv -Wl,--export-dynamic-symbol=gnutls_record_recv
$(BUILD)/fuzz/%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(EVERYTHING)
	@mkdir -p $(@D)
	$(call program,$(ALL_LIBS))

# ---- for people ------------------------------------------------------------------------------------------------------
.PHONY: demo run bench lint format install clean help
TILE ?=
demo: deps
	@$(MAKE) --no-print-directory -j$(JOBS) outputs
	@BUILD=$(BUILD) TILE="$(TILE)" packaging/demo/demo.sh

run: all
	$(BUILD)/unetserve --model land-cover=packaging/models/s2-worldcover

# QUICK=1, or bench-quick: three minutes, and exit status 1 when a ratio became worse than bench/baseline.json allows. The peers' virtual
# environment is made at the first run and kept. bench-figures, bench-baseline: README's
# figures and bench/baseline.json from the last run.
.PHONY: bench-quick bench-programs bench-precision bench-figures bench-baseline
QUICK ?=
bench-programs: all
	@packaging/install-deps.sh build bench
	@$(MAKE) --no-print-directory -j$(JOBS) $(BUILD)/bench/forward $(BUILD)/bench/broker-rate
bench: bench-programs
	@BUILD=$(BUILD) $(PYTHON) bench/run.py $(if $(QUICK),--quick)
bench-quick: bench-programs
	@BUILD=$(BUILD) $(PYTHON) bench/run.py --quick
bench-precision: bench-programs
	@$(PYTHON) bench/environment.py
	@BUILD=$(BUILD) build/bench/venv/bin/python bench/precision/report.py
bench-figures:
	@$(PYTHON) bench/readme.py build/bench/results.json README.md
bench-baseline:
	@$(PYTHON) bench/ratios.py build/bench/results.json --write bench/baseline.json

# What the 31M network would take on AMX by a count of its instructions, as a table: docs/amx.md.
.PHONY: amx-cost
amx-cost: deps
	@$(MAKE) --no-print-directory -j$(JOBS) $(BUILD)/bench/amx-cost
	@$(BUILD)/bench/amx-cost

# Instructions of the hot paths, against bench/counts/counts.json; UPDATE=1 writes it.
.PHONY: counts
counts:
	@packaging/install-deps.sh build counts
	@$(MAKE) --no-print-directory -j$(JOBS) $(BUILD)/bench/counts
	@$(PYTHON) bench/counts/run.py --driver $(BUILD)/bench/counts --compiler "$(CC)" $(if $(UPDATE),--update)

lint:
	@packaging/install-deps.sh build test lint
	@packaging/lint.sh

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

install: all
	@BUILD=$(BUILD) PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) VERSION=$(VERSION) packaging/install.sh

install-server: server
	@BUILD=$(BUILD) PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) VERSION=$(VERSION) packaging/install.sh server

clean:
	rm -rf build build-*

help:
	@echo 'make            build into $(BUILD)/'
	@echo 'make demo       build, serve the demonstration model, send a tile (TILE=file.tif), write build/demo/mask.png'
	@echo 'make test       build and run every test'
	@echo 'make unit-qemu  unit tests on an emulated processor of 2008'
	@echo 'make wheel      the Python package, for pip'
	@echo 'make run        serve the demonstration model on 127.0.0.1:8000'
	@echo 'make test-gpu-double  the cuDNN backend on a double of a GPU, where the CUDA toolkit is'
	@echo 'make test-gpu   the same on the GPUs of this machine; make bench-gpu: how fast they are'
	@echo 'make test-gpu-planted  bugs planted in the cuDNN backend: its tests must find each'
	@echo 'make gpu-kernels-report  registers, occupancy and bytes of our GPU kernels, into docs/gpu.md'
	@echo 'make model      search the slot protocol with spin (SIZE=small: the bounds of CI)'
	@echo 'make chaos      kill and stop processes under load for MINUTES=$(MINUTES), with SEED=; SUPERVISOR=1: that one too'
	@echo 'make soak       load without faults for MINUTES=$(MINUTES): memory and descriptors do not grow'
	@echo 'make recovery   how long each process takes to be back after kill -9: figures'
	@echo 'make autoscaler-table  simulate the autoscaler against a bound on its cost'
	@echo 'make amx-cost   what a UNet of 31M parameters should take on AMX, by a count of its instructions'
	@echo 'make bench      measure beside LitServe and others: ten minutes; QUICK=1 or make bench-quick: three; make bench-figures: into README'
	@echo 'make counts     instructions of the hot paths, against those that are written down (UPDATE=1: write them down)'
	@echo 'make lint       clang-tidy, cppcheck, clang-format, shellcheck'
	@echo 'make fuzz       fuzz every parser for MINUTES=$(MINUTES)'
	@echo 'make install    DESTDIR= PREFIX=/usr'
	@echo 'SANITIZER=address|undefined|thread builds into build-SANITIZER'

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
