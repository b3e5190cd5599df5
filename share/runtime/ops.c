/* Custom operators of onnxruntime that run kernels given as function pointers.

   The binary interface of onnxruntime is append-only, so it is declared here by position and no header is needed:
   `OrtApiBase.GetApi(24)` returns a table of functions (null before onnxruntime 1.24), of which we use those of
   `struct ort`, and `OrtCustomOp` is a struct of callbacks whose fields never move. Those after `KernelComputeV2` stay null.

   Life of a registration: `sartor_new`, `sartor_add_op` and `sartor_add_variant` for each kernel, then `sartor_use` and,
   in the same thread, the `RegisterCustomOps` call of one session. The caller holds one reference and each kernel
   instance of the session another; the last to go frees everything.

   With SARTOR_KERNELS, the name of a generated file, this becomes a library of its own instead (ahead.py): kernels are
   linked in, the file holds their table, and any program can register it. It exports `RegisterCustomOps` alone.

   A kernel, its plan query and its tasks are described in kernel.py. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define API_VERSION 24    /* the first with a shape accessor that doesn't allocate */
#define OP_VERSION 16     /* the first with CreateKernelV2 and KernelComputeV2 */
#define INLINE_BYTES (128 << 10) /* calls that move less run in the calling thread */
#define CHUNK_BYTES (64 << 10)   /* least traffic of one chunk handed to the pool */
#define INLINE_WORK 10000        /* the like for one of several phases, in nanoseconds as kernels count them */
#define CHUNK_WORK 2500
#define CHUNKS_A_THREAD 8        /* more chunks than threads, so that slow ones even out */
#define ALIGNMENT 64

typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtCustomOp OrtCustomOp;
typedef void (*any_fn)(void);
typedef OrtStatus *(*create_status_fn)(int code, const char *message);
enum { ORT_FAIL = 1 };
enum { REQUIRED = 0, OPTIONAL = 1 };
enum { PLAN_TASKS, PLAN_SCRATCH, PLAN_BYTES, PLAN_DIMS };
/* What the plan of several phases holds behind the sizes of the outputs; the last two are those of each phase. */
enum { PLAN_SHARED, PLAN_SLICES, PLAN_PHASES };
enum { PHASE_TASKS, PHASE_WORK, PHASE_FACTS };
enum { OWN, SHARED, BUFFERS };

typedef struct {
    const any_fn *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

struct OrtCustomOp {
    uint32_t version;
    void *(*CreateKernel)(const OrtCustomOp *, const void *, const OrtKernelInfo *);
    const char *(*GetName)(const OrtCustomOp *);
    const char *(*GetExecutionProviderType)(const OrtCustomOp *);
    int (*GetInputType)(const OrtCustomOp *, size_t);
    size_t (*GetInputTypeCount)(const OrtCustomOp *);
    int (*GetOutputType)(const OrtCustomOp *, size_t);
    size_t (*GetOutputTypeCount)(const OrtCustomOp *);
    void (*KernelCompute)(void *, OrtKernelContext *);
    void (*KernelDestroy)(void *);
    int (*GetInputCharacteristic)(const OrtCustomOp *, size_t);
    int (*GetOutputCharacteristic)(const OrtCustomOp *, size_t);
    int (*GetInputMemoryType)(const OrtCustomOp *, size_t);
    int (*GetVariadicInputMinArity)(const OrtCustomOp *);
    int (*GetVariadicInputHomogeneity)(const OrtCustomOp *);
    int (*GetVariadicOutputMinArity)(const OrtCustomOp *);
    int (*GetVariadicOutputHomogeneity)(const OrtCustomOp *);
    OrtStatus *(*CreateKernelV2)(const OrtCustomOp *, const void *, const OrtKernelInfo *, void **);
    OrtStatus *(*KernelComputeV2)(void *, OrtKernelContext *);
    any_fn later[7];
};

struct ort {
    create_status_fn create_status;
    OrtStatus *(*create_domain)(const char *name, OrtCustomOpDomain **out);
    OrtStatus *(*add_op)(OrtCustomOpDomain *, const OrtCustomOp *);
    OrtStatus *(*add_domain)(OrtSessionOptions *, OrtCustomOpDomain *);
    void (*release_domain)(OrtCustomOpDomain *);
    OrtStatus *(*data)(OrtValue *, void **out);
    OrtStatus *(*shape)(const OrtValue *, int *type, const int64_t **dims, size_t *rank);
    OrtStatus *(*input)(const OrtKernelContext *, size_t, const OrtValue **out);
    OrtStatus *(*output)(OrtKernelContext *, size_t, const int64_t *dims, size_t rank, OrtValue **out);
    OrtStatus *(*parallel_for)(const OrtKernelContext *, void (*)(void *, size_t), size_t total, size_t batches, void *);
};

typedef int64_t (*kernel_fn)(
    void **inputs, void **outputs, const int64_t *dims, char *scratch, int64_t begin, int64_t end);

struct variant {
    struct variant *next;
    kernel_fn run;
    void *state;
    size_t phases;
    size_t output_dims;
    int32_t ranks[]; /* inputs, then outputs; -1 where absent */
};

struct domain {
    struct domain *next;
    OrtCustomOpDomain *handle;
    char name[];
};

struct op {
    OrtCustomOp callbacks; /* first, so that onnxruntime's pointer is ours */
    struct op *next;
    struct registration *registration;
    struct domain *domain;
    struct variant *variants;
    char *name;
    int32_t *types; /* inputs, then outputs */
    uint8_t *optional;
    size_t inputs, outputs;
    size_t most_input_dims, most_plan;
};

struct registration {
    struct registration *next;
    const any_fn *api;
    struct ort ort;
    atomic_long references;
    int64_t threads;
    struct op *ops;
    struct domain *domains;
};

struct call {
    kernel_fn run;
    void **inputs, **outputs;
    const int64_t *dims;
    int64_t first, tasks, chunk;
    size_t scratch;
    const int64_t *phases; /* tasks and work of each */
    size_t phase_count;
    int64_t slices;
    atomic_int failed;
};

struct buffer {
    size_t size;
    char *data;
};

static atomic_long live;
#ifndef SARTOR_KERNELS
static _Thread_local struct registration *pending;
#endif
static pthread_key_t buffer_key;

/* Scratch memory: growing buffers of each thread, one for its tasks and one that the tasks of its calls share. */

static void free_buffers(void *value) {
    struct buffer *buffers = value;
    for (int i = 0; i < BUFFERS; i++) free(buffers[i].data);
    free(buffers);
}

__attribute__((constructor)) static void create_buffer_key(void) {
    if (pthread_key_create(&buffer_key, free_buffers) != 0) abort();
}

static struct buffer *thread_buffers(void) {
    struct buffer *buffers = pthread_getspecific(buffer_key);
    if (buffers != NULL) return buffers;
    buffers = calloc(BUFFERS, sizeof *buffers);
    if (buffers != NULL && pthread_setspecific(buffer_key, buffers) != 0) {
        free(buffers);
        return NULL;
    }
    return buffers;
}

static char *thread_scratch(int which, size_t size) {
    struct buffer *buffers = thread_buffers();
    if (buffers == NULL) return NULL;
    struct buffer *buffer = &buffers[which];
    if (size <= buffer->size) return buffer->data;
    free(buffer->data);
    buffer->size = 0;
    size_t rounded = (size + 4095) & ~(size_t)4095;
    if (posix_memalign((void **)&buffer->data, ALIGNMENT, rounded) != 0) return buffer->data = NULL;
    buffer->size = rounded;
    return buffer->data;
}

/* One call. */

static OrtStatus *failure(const struct op *op, const char *reason) {
    char message[256];
    snprintf(message, sizeof message, "sartor: %s: %s", op->name, reason);
    return op->registration->ort.create_status(ORT_FAIL, message);
}

static void run_range(struct call *call, int64_t begin, int64_t end) {
    char *scratch = call->scratch == 0 ? NULL : thread_scratch(OWN, call->scratch);
    int fits = scratch != NULL || call->scratch == 0;
    if (!fits || call->run(call->inputs, call->outputs, call->dims, scratch, begin, end) != 0)
        atomic_store_explicit(&call->failed, 1, memory_order_relaxed);
}

static void run_chunk(void *usr, size_t index) {
    struct call *call = usr;
    int64_t done = (int64_t)index * call->chunk, begin = call->first + done;
    int64_t left = call->tasks - done;
    run_range(call, begin, begin + (left < call->chunk ? left : call->chunk));
}

static int64_t chunk_size(int64_t tasks, int64_t amount, int64_t least, int64_t threads) {
    int64_t task_amount = amount / tasks + 1;
    int64_t by_amount = (least + task_amount - 1) / task_amount;
    int64_t by_threads = tasks / (CHUNKS_A_THREAD * threads);
    return by_amount > by_threads ? by_amount : by_threads;
}

/* `amount` is what the tasks move or take: no more than `inline_amount` stays in this thread, a chunk has `least`. */
static inline OrtStatus *run_tasks(
    const struct op *op, OrtKernelContext *context, struct call *call, int64_t amount, int64_t inline_amount,
    int64_t least) {
    const struct registration *registration = op->registration;
    OrtStatus *status = NULL;
    if (registration->threads > 1 && amount > inline_amount && call->tasks > 1) {
        call->chunk = chunk_size(call->tasks, amount, least, registration->threads);
        size_t chunks = (size_t)((call->tasks + call->chunk - 1) / call->chunk);
        status = registration->ort.parallel_for(context, run_chunk, chunks, 0, call);
    } else if (call->tasks > 0) {
        run_range(call, call->first, call->first + call->tasks);
    }
    if (status == NULL && call->failed) return failure(op, "the kernel gave up in the middle of its work");
    return status;
}

/* Several phases. */

static void run_slices(void *usr, size_t index) {
    struct call *call = usr;
    int64_t begin = (int64_t)index * call->chunk, left = call->slices - begin, first = 0;
    int64_t end = begin + (left < call->chunk ? left : call->chunk);
    for (size_t phase = 0; phase < call->phase_count; phase++) {
        int64_t tasks = call->phases[phase * PHASE_FACTS + PHASE_TASKS], each = tasks / call->slices;
        run_range(call, first + begin * each, first + end * each);
        first += tasks;
    }
}

/* Tell whether threads are about as busy with a slice each as with all of them in one phase after the other. */
static int slices_suffice(int64_t slices, int64_t bytes, int64_t threads) {
    int64_t rounds = (slices + threads - 1) / threads;
    return threads == 1 || bytes <= INLINE_BYTES || 5 * slices >= 4 * threads * rounds;
}

/* Slices need nothing of each other, and what a slice has written is still in cache when its next phase reads it. */
static OrtStatus *run_by_slice(const struct op *op, OrtKernelContext *context, struct call *call, int64_t bytes) {
    OrtStatus *status = NULL;
    call->chunk = CHUNK_BYTES / (bytes / call->slices + 1) + 1;
    size_t chunks = (size_t)((call->slices + call->chunk - 1) / call->chunk);
    if (op->registration->threads > 1 && bytes > INLINE_BYTES && chunks > 1) {
        status = op->registration->ort.parallel_for(context, run_slices, chunks, 0, call);
    } else {
        for (size_t i = 0; i < chunks; i++) run_slices(call, i);
    }
    if (status == NULL && call->failed) return failure(op, "the kernel gave up in the middle of its work");
    return status;
}

/* All tasks of a phase are done before the next begins. */
static OrtStatus *run_by_phase(const struct op *op, OrtKernelContext *context, struct call *call) {
    OrtStatus *status = NULL;
    for (size_t phase = 0; phase < call->phase_count && status == NULL; phase++) {
        const int64_t *facts = call->phases + phase * PHASE_FACTS;
        call->tasks = facts[PHASE_TASKS];
        status = run_tasks(op, context, call, facts[PHASE_WORK], INLINE_WORK, CHUNK_WORK);
        call->first += call->tasks;
    }
    return status;
}

static OrtStatus *run_phases(
    const struct op *op, const struct variant *variant, OrtKernelContext *context, struct call *call,
    const int64_t *plan) {
    const int64_t *told = plan + PLAN_DIMS + variant->output_dims;
    size_t shared = (size_t)told[PLAN_SHARED];
    call->outputs[op->outputs] = thread_scratch(SHARED, shared);
    if (call->outputs[op->outputs] == NULL && shared > 0) return failure(op, "out of memory");
    call->phases = told + PLAN_PHASES, call->phase_count = variant->phases, call->slices = told[PLAN_SLICES];
    if (slices_suffice(call->slices, plan[PLAN_BYTES], op->registration->threads))
        return run_by_slice(op, context, call, plan[PLAN_BYTES]);
    return run_by_phase(op, context, call);
}

static OrtStatus *read_inputs(
    const struct op *op, OrtKernelContext *context, void **data, const int64_t **shapes, int32_t *ranks) {
    const struct ort *ort = &op->registration->ort;
    for (size_t i = 0; i < op->inputs; i++) {
        const OrtValue *value = NULL;
        OrtStatus *status = ort->input(context, i, &value);
        if (status != NULL) return status;
        data[i] = NULL;
        ranks[i] = -1;
        if (value == NULL) continue;
        int type;
        size_t rank;
        if ((status = ort->shape(value, &type, &shapes[i], &rank)) != NULL) return status;
        if ((status = ort->data((OrtValue *)value, &data[i])) != NULL) return status;
        ranks[i] = (int32_t)rank;
    }
    return NULL;
}

static int same_ranks(const struct op *op, const struct variant *variant, const int32_t *ranks) {
    for (size_t i = 0; i < op->inputs; i++)
        if (variant->ranks[i] != ranks[i]) return 0;
    return 1;
}

static void join_shapes(const struct op *op, const int64_t **shapes, const int32_t *ranks, int64_t *dims) {
    for (size_t i = 0; i < op->inputs; i++)
        for (int32_t axis = 0; axis < ranks[i]; axis++) *dims++ = shapes[i][axis];
}

/* Find the first kernel that accepts these sizes and its plan; null where there is none. */
static const struct variant *choose(
    const struct op *op, void **inputs, const int64_t **shapes, const int32_t *ranks, int64_t *dims, int64_t *plan) {
    int joined = 0;
    for (const struct variant *variant = op->variants; variant != NULL; variant = variant->next) {
        if (!same_ranks(op, variant, ranks)) continue;
        if (!joined) join_shapes(op, shapes, ranks, dims);
        joined = 1;
        inputs[op->inputs] = variant->state;
        plan[PLAN_TASKS] = op->registration->threads;
        if (variant->run(inputs, NULL, dims, (char *)plan, -1, -1) == 0) return variant;
    }
    return NULL;
}

static OrtStatus *make_outputs(
    const struct op *op, const struct variant *variant, OrtKernelContext *context, const int64_t *sizes, void **data) {
    const struct ort *ort = &op->registration->ort;
    for (size_t i = 0; i < op->outputs; i++) {
        size_t rank = (size_t)variant->ranks[op->inputs + i];
        OrtValue *value = NULL;
        OrtStatus *status = ort->output(context, i, sizes, rank, &value);
        if (status != NULL) return status;
        if (value == NULL) return failure(op, "an output is missing");
        if ((status = ort->data(value, &data[i])) != NULL) return status;
        sizes += rank;
    }
    return NULL;
}

static OrtStatus *compute(void *kernel, OrtKernelContext *context) {
    const struct op *op = kernel;
    void *inputs[op->inputs + 1], *outputs[op->outputs + 1];
    const int64_t *shapes[op->inputs + 1];
    int32_t ranks[op->inputs + 1];
    int64_t dims[op->most_input_dims + 1], plan[PLAN_DIMS + op->most_plan];
    OrtStatus *status = read_inputs(op, context, inputs, shapes, ranks);
    if (status != NULL) return status;
    const struct variant *variant = choose(op, inputs, shapes, ranks, dims, plan);
    if (variant == NULL) return failure(op, "no kernel fits these sizes");
    if ((status = make_outputs(op, variant, context, plan + PLAN_DIMS, outputs)) != NULL) return status;
    struct call call = {
        .run = variant->run, .inputs = inputs, .outputs = outputs, .dims = dims, .tasks = plan[PLAN_TASKS],
        .scratch = (size_t)plan[PLAN_SCRATCH]};
    if (variant->phases > 1) return run_phases(op, variant, context, &call, plan);
    return run_tasks(op, context, &call, plan[PLAN_BYTES], INLINE_BYTES, CHUNK_BYTES);
}

/* What onnxruntime asks about an operator. */

#define OP(base) ((const struct op *)(base))
static const char *op_name(const OrtCustomOp *base) { return OP(base)->name; }
static const char *op_provider(const OrtCustomOp *base) { return (void)base, NULL; }
static size_t op_inputs(const OrtCustomOp *base) { return OP(base)->inputs; }
static size_t op_outputs(const OrtCustomOp *base) { return OP(base)->outputs; }
static int op_input_type(const OrtCustomOp *base, size_t i) { return OP(base)->types[i]; }
static int op_output_type(const OrtCustomOp *base, size_t i) { return OP(base)->types[OP(base)->inputs + i]; }
static int op_input_kind(const OrtCustomOp *base, size_t i) { return OP(base)->optional[i] ? OPTIONAL : REQUIRED; }
static int op_output_kind(const OrtCustomOp *base, size_t i) { return (void)base, (void)i, REQUIRED; }
static int op_memory(const OrtCustomOp *base, size_t i) { return (void)base, (void)i, 0; }
static int op_arity(const OrtCustomOp *base) { return (void)base, 0; }

static OrtStatus *create_kernel(const OrtCustomOp *base, const void *api, const OrtKernelInfo *info, void **kernel) {
    struct op *op = (struct op *)base;
    (void)api, (void)info;
    atomic_fetch_add(&op->registration->references, 1);
    *kernel = op;
    return NULL;
}

void sartor_release(struct registration *registration);
static void destroy_kernel(void *kernel) { sartor_release(((struct op *)kernel)->registration); }

static const OrtCustomOp CALLBACKS = {
    .version = OP_VERSION, .GetName = op_name, .GetExecutionProviderType = op_provider, .GetInputType = op_input_type,
    .GetInputTypeCount = op_inputs, .GetOutputType = op_output_type, .GetOutputTypeCount = op_outputs,
    .KernelDestroy = destroy_kernel, .GetInputCharacteristic = op_input_kind, .GetOutputCharacteristic = op_output_kind,
    .GetInputMemoryType = op_memory, .GetVariadicInputMinArity = op_arity, .GetVariadicInputHomogeneity = op_arity,
    .GetVariadicOutputMinArity = op_arity, .GetVariadicOutputHomogeneity = op_arity, .CreateKernelV2 = create_kernel,
    .KernelComputeV2 = compute};

/* Registrations. */

struct registration *sartor_new(int64_t threads) {
    struct registration *registration = calloc(1, sizeof *registration);
    if (registration == NULL) return NULL;
    registration->threads = threads;
    atomic_init(&registration->references, 1);
    atomic_fetch_add(&live, 1);
    return registration;
}

static void free_op(struct op *op) {
    while (op->variants != NULL) {
        struct variant *variant = op->variants;
        op->variants = variant->next;
        free(variant);
    }
    free(op->name);
    free(op->types);
    free(op->optional);
    free(op);
}

void sartor_release(struct registration *registration) {
    if (atomic_fetch_sub(&registration->references, 1) != 1) return;
    while (registration->ops != NULL) {
        struct op *op = registration->ops;
        registration->ops = op->next;
        free_op(op);
    }
    while (registration->domains != NULL) {
        struct domain *domain = registration->domains;
        registration->domains = domain->next;
        if (domain->handle != NULL) registration->ort.release_domain(domain->handle);
        free(domain);
    }
    free(registration);
    atomic_fetch_sub(&live, 1);
}

/* The number of registrations that are not freed yet. */
int64_t sartor_live(void) { return atomic_load(&live); }

/* The number of references to one: that of the caller and one for each kernel instance in a session. */
int64_t sartor_references(const struct registration *registration) { return atomic_load(&registration->references); }

static struct domain *find_domain(struct registration *registration, const char *name) {
    for (struct domain *domain = registration->domains; domain != NULL; domain = domain->next)
        if (strcmp(domain->name, name) == 0) return domain;
    struct domain *domain = calloc(1, sizeof *domain + strlen(name) + 1);
    if (domain == NULL) return NULL;
    strcpy(domain->name, name);
    domain->next = registration->domains;
    return registration->domains = domain;
}

static void *copy(const void *data, size_t size) {
    void *result = malloc(size + 1); /* never zero, so that null means failure */
    return result == NULL ? NULL : memcpy(result, data, size);
}

/* Add an operator; `types` are of the inputs, then of the outputs, `optional` of the inputs. Null when out of memory. */
struct op *sartor_add_op(
    struct registration *registration, const char *domain, const char *name, size_t inputs, size_t outputs,
    const int32_t *types, const uint8_t *optional) {
    struct op *op = calloc(1, sizeof *op);
    if (op == NULL) return NULL;
    *op = (struct op){
        .callbacks = CALLBACKS, .registration = registration, .domain = find_domain(registration, domain),
        .name = copy(name, strlen(name) + 1), .types = copy(types, (inputs + outputs) * sizeof *types),
        .optional = copy(optional, inputs), .inputs = inputs, .outputs = outputs};
    if (op->domain == NULL || op->name == NULL || op->types == NULL || op->optional == NULL) return free_op(op), NULL;
    op->next = registration->ops;
    return registration->ops = op;
}

static size_t sum_ranks(const int32_t *ranks, size_t count) {
    size_t sum = 0;
    for (size_t i = 0; i < count; i++) sum += ranks[i] > 0 ? (size_t)ranks[i] : 0;
    return sum;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Add a kernel, tried after those before it; `ranks` are of the inputs (-1 where absent), then of the outputs.
   Returns 1 when out of memory. */
int sartor_add_variant(struct op *op, kernel_fn run, void *state, size_t phases, const int32_t *ranks) {
    size_t count = op->inputs + op->outputs;
    struct variant *variant = calloc(1, sizeof *variant + count * sizeof *ranks);
    if (variant == NULL) return 1;
    variant->run = run;
    variant->state = state;
    variant->phases = phases;
    variant->output_dims = sum_ranks(ranks + op->inputs, op->outputs);
    memcpy(variant->ranks, ranks, count * sizeof *ranks);
    op->most_input_dims = larger(op->most_input_dims, sum_ranks(ranks, op->inputs));
    size_t more = phases > 1 ? PLAN_PHASES + phases * PHASE_FACTS : 0;
    op->most_plan = larger(op->most_plan, variant->output_dims + more);
    struct variant **end = &op->variants;
    while (*end != NULL) end = &(*end)->next;
    *end = variant;
    return 0;
}

static struct ort read_api(const any_fn *api) {
    return (struct ort){
        .create_status = (create_status_fn)api[0],
        .create_domain = (OrtStatus * (*)(const char *, OrtCustomOpDomain **)) api[26],
        .add_op = (OrtStatus * (*)(OrtCustomOpDomain *, const OrtCustomOp *)) api[27],
        .add_domain = (OrtStatus * (*)(OrtSessionOptions *, OrtCustomOpDomain *)) api[28],
        .data = (OrtStatus * (*)(OrtValue *, void **)) api[51],
        .input = (OrtStatus * (*)(const OrtKernelContext *, size_t, const OrtValue **)) api[90],
        .output = (OrtStatus * (*)(OrtKernelContext *, size_t, const int64_t *, size_t, OrtValue **)) api[91],
        .release_domain = (void (*)(OrtCustomOpDomain *))api[101],
        .parallel_for =
            (OrtStatus * (*)(const OrtKernelContext *, void (*)(void *, size_t), size_t, size_t, void *)) api[274],
        .shape = (OrtStatus * (*)(const OrtValue *, int *, const int64_t **, size_t *)) api[414]};
}

static OrtStatus *create_domains(struct registration *registration) {
    OrtStatus *status = NULL;
    for (struct domain *domain = registration->domains; domain != NULL && status == NULL; domain = domain->next)
        status = registration->ort.create_domain(domain->name, &domain->handle);
    for (struct op *op = registration->ops; op != NULL && status == NULL; op = op->next)
        status = registration->ort.add_op(op->domain->handle, &op->callbacks);
    return status;
}

#ifdef SARTOR_KERNELS

struct ready_variant {
    kernel_fn run;
    size_t phases;
    const int32_t *ranks;
};

struct ready_op {
    const char *domain, *name;
    size_t inputs, outputs;
    const int32_t *types;
    const uint8_t *optional;
    const struct ready_variant *variants; /* up to one without a function */
};

#include SARTOR_KERNELS /* OPS, up to one without a name, and lacking_feature */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct registration *built; /* one for each onnxruntime in the process; they live as long as it does */

static int fill(struct registration *registration) {
    for (const struct ready_op *ready = OPS; ready->name != NULL; ready++) {
        struct op *op = sartor_add_op(
            registration, ready->domain, ready->name, ready->inputs, ready->outputs, ready->types, ready->optional);
        if (op == NULL) return 1;
        for (const struct ready_variant *variant = ready->variants; variant->run != NULL; variant++)
            if (sartor_add_variant(op, variant->run, NULL, variant->phases, variant->ranks) != 0) return 1;
    }
    return 0;
}

static OrtStatus *build(const any_fn *api, create_status_fn fail) {
    /* A session with fewer threads runs the same chunks one after the other. */
    struct registration *registration = sartor_new(sysconf(_SC_NPROCESSORS_ONLN));
    if (registration == NULL) return fail(ORT_FAIL, "sartor: out of memory");
    registration->api = api;
    registration->ort = read_api(api);
    OrtStatus *status =
        fill(registration) != 0 ? fail(ORT_FAIL, "sartor: out of memory") : create_domains(registration);
    if (status != NULL) return sartor_release(registration), status;
    registration->next = built;
    built = registration;
    return NULL;
}

static struct registration *find_built(const any_fn *api) {
    struct registration *registration = built;
    while (registration != NULL && registration->api != api) registration = registration->next;
    return registration;
}

static OrtStatus *take(const any_fn *api, create_status_fn fail, struct registration **taken) {
    const char *lacking = lacking_feature();
    if (lacking != NULL) {
        char message[256];
        snprintf(
            message, sizeof message,
            "sartor: these kernels are for processors with %s, which this one lacks; emit the library on this machine",
            lacking);
        return fail(ORT_FAIL, message);
    }
    if (api == NULL) return NULL;
    pthread_mutex_lock(&lock);
    OrtStatus *status = find_built(api) == NULL ? build(api, fail) : NULL;
    *taken = find_built(api);
    pthread_mutex_unlock(&lock);
    return status;
}

#else

/* Let the next RegisterCustomOps call of this thread register these operators. */
void sartor_use(struct registration *registration) { pending = registration; }

static OrtStatus *take(const any_fn *api, create_status_fn fail, struct registration **taken) {
    struct registration *registration = pending;
    pending = NULL;
    if (api == NULL) return NULL;
    if (registration == NULL) return fail(ORT_FAIL, "sartor: nothing to register");
    registration->ort = read_api(api);
    *taken = registration;
    return create_domains(registration);
}

#endif

EXPORT OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    const any_fn *api = base->GetApi(API_VERSION);
    create_status_fn fail = (create_status_fn)base->GetApi(1)[0];
    struct registration *registration = NULL;
    OrtStatus *status = take(api, fail, &registration);
    if (status != NULL) return status;
    if (api == NULL) return fail(ORT_FAIL, "sartor: onnxruntime is older than 1.24");
    for (struct domain *domain = registration->domains; domain != NULL && status == NULL; domain = domain->next)
        status = registration->ort.add_domain(options, domain->handle);
    return status;
}
