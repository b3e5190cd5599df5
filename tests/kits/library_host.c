/* A program that knows onnxruntime alone: runs a model with one float input and one float output, with the kernels of
   a library. Arguments: onnxruntime, library or "", model, sizes of the input. Numbers come from stdin and go to stdout.

   No header is needed: OrtApi is a table of functions that is only ever appended to, and is read by position. */

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    void *const *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

enum {
    GET_ERROR_MESSAGE = 2, CREATE_ENV = 3, CREATE_SESSION = 7, RUN = 9, CREATE_SESSION_OPTIONS = 10,
    REGISTER_CUSTOM_OPS_LIBRARY = 29, SESSION_GET_INPUT_NAME = 36, SESSION_GET_OUTPUT_NAME = 37, CREATE_TENSOR = 49,
    GET_TENSOR_MUTABLE_DATA = 51, GET_TENSOR_SHAPE_ELEMENT_COUNT = 64, GET_TENSOR_TYPE_AND_SHAPE = 65,
    CREATE_CPU_MEMORY_INFO = 69, GET_ALLOCATOR_WITH_DEFAULT_OPTIONS = 78
};
enum { WARNING = 2, FLOAT = 1, ARENA_ALLOCATOR = 1, MEM_TYPE_DEFAULT = 0 };

static void *const *api;

static void check(void *status) {
    if (status == NULL) return;
    fprintf(stderr, "%s\n", ((const char *(*)(const void *))api[GET_ERROR_MESSAGE])(status));
    exit(3);
}

#define CALL(position, ...) check(((void *(*)())api[position])(__VA_ARGS__))

static void *open_session(const char *library, const char *model) {
    void *env, *options, *handle, *session;
    CALL(CREATE_ENV, WARNING, "host", &env);
    CALL(CREATE_SESSION_OPTIONS, &options);
    if (*library != 0) CALL(REGISTER_CUSTOM_OPS_LIBRARY, options, library, &handle);
    CALL(CREATE_SESSION, env, model, options, &session);
    return session;
}

static void *read_input(int rank, char **sizes) {
    int64_t shape[8];
    size_t count = 1;
    for (int i = 0; i < rank; i++) count *= (size_t)(shape[i] = atoll(sizes[i]));
    float *numbers = malloc(count * sizeof *numbers);
    if (numbers == NULL || fread(numbers, sizeof *numbers, count, stdin) != count) exit(4);
    void *memory, *tensor;
    CALL(CREATE_CPU_MEMORY_INFO, ARENA_ALLOCATOR, MEM_TYPE_DEFAULT, &memory);
    CALL(CREATE_TENSOR, memory, numbers, count * sizeof *numbers, shape, (size_t)rank, FLOAT, &tensor);
    return tensor;
}

static void write_output(void *tensor) {
    void *facts;
    float *numbers;
    size_t count;
    CALL(GET_TENSOR_TYPE_AND_SHAPE, tensor, &facts);
    CALL(GET_TENSOR_SHAPE_ELEMENT_COUNT, facts, &count);
    CALL(GET_TENSOR_MUTABLE_DATA, tensor, (void **)&numbers);
    fwrite(numbers, sizeof *numbers, count, stdout);
}

int main(int argc, char **argv) {
    void *runtime = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (runtime == NULL) return fprintf(stderr, "%s\n", dlerror()), 2;
    const OrtApiBase *base = ((const OrtApiBase *(*)(void))dlsym(runtime, "OrtGetApiBase"))();
    api = base->GetApi(24);
    void *session = open_session(argv[2], argv[3]), *input = read_input(argc - 4, argv + 4), *output = NULL;
    void *allocator;
    char *input_name, *output_name;
    CALL(GET_ALLOCATOR_WITH_DEFAULT_OPTIONS, &allocator);
    CALL(SESSION_GET_INPUT_NAME, session, (size_t)0, allocator, &input_name);
    CALL(SESSION_GET_OUTPUT_NAME, session, (size_t)0, allocator, &output_name);
    CALL(
        RUN, session, (void *)NULL, (const char *const *)&input_name, (const void *const *)&input, (size_t)1,
        (const char *const *)&output_name, (size_t)1, &output);
    write_output(output);
    return 0;
}
