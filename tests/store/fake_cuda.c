/* A CUDA driver on host memory: what `cuda.bindings` calls, and no more.

   Copies are not done when they are asked for, but when somebody waits for them or
   asks whether they are done, in the order of their stream: whoever does not wait
   finds other bytes. A call without the context, an unknown handle or memory that was
   not allocated or registered is an error. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef unsigned long long Pointer;
enum { SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, INVALID_DEVICE = 101,
       INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600,
       NOT_SUPPORTED = 801 };
enum { COPY, RECORD, WAIT, MAX = 4096 };

static const size_t total = 1 << 30;
static size_t taken;
static char context;
static __thread void *current;

struct range { char *start; size_t size; };
static struct range allocated[MAX], registered[MAX];

/* A stream's operations, of all streams in the order in which they were asked for. */
struct operation {
  long stream; int kind; void *to; const void *from; size_t size; long event, count;
};
static struct operation operations[1 << 16];
static int done[1 << 16], num_operations;
static int flushes;
static long streams, events, recorded[MAX], passed[MAX];

#define IN_CONTEXT if (current != &context) return INVALID_CONTEXT

static int within(struct range *ranges, const void *start, size_t size) {
  for (int i = 0; i < MAX; i++)
    if (ranges[i].start && ranges[i].start <= (char *)start &&
        (char *)start + size <= ranges[i].start + ranges[i].size)
      return 1;
  return 0;
}

static int keep(struct range *ranges, void *start, size_t size) {
  for (int i = 0; i < MAX; i++)
    if (!ranges[i].start) {
      ranges[i] = (struct range){start, size};
      return SUCCESS;
    }
  return INVALID_VALUE;
}

static size_t forget(struct range *ranges, void *start) {
  for (int i = 0; i < MAX; i++)
    if (ranges[i].start == start) {
      ranges[i].start = 0;
      return ranges[i].size;
    }
  return 0;
}

static void run(long stream, long event, long count);

/* Does the next operation of a stream; whether there was one. */
static int run_one(long stream) {
  for (int i = 0; i < num_operations; i++) {
    struct operation *next = &operations[i];
    if (done[i] || next->stream != stream) continue;
    if (next->kind == COPY) memcpy(next->to, next->from, next->size);
    if (next->kind == RECORD) passed[next->event] = next->count;
    if (next->kind == WAIT)
      for (long other = 1; other <= streams; other++)
        if (other != stream) run(other, next->event, next->count);
    done[i] = 1;
    return 1;
  }
  return 0;
}

/* Goes on until the event has passed so often, or to the end of the stream. */
static void run(long stream, long event, long count) {
  while ((!event || passed[event] < count) && run_one(stream)) {
  }
}

static int ask(struct operation asked) {
  if (asked.stream < 1 || asked.stream > streams || num_operations == 1 << 16)
    return INVALID_HANDLE;
  operations[num_operations++] = asked;
  return SUCCESS;
}

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : SUCCESS; }
int cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
int cuDeviceGetCount(int *count) {
  *count = getenv("FAKE_NO_GPU") ? 0 : 1;
  return SUCCESS;
}
int cuDeviceGet(int *device, int ordinal) {
  *device = 7;
  return ordinal ? INVALID_DEVICE : SUCCESS;
}
int cuDeviceGetName(char *name, int length, int device) {
  snprintf(name, length, "Fake GPU");
  return device == 7 ? SUCCESS : INVALID_DEVICE;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  int has_dmabuf = !getenv("FAKE_NO_DMABUF"), ordering = getenv("FAKE_ORDERED") ? 100 : 0;
  *value = attribute == 124   ? has_dmabuf
           : attribute == 117 ? 1 /* Flushed by a call. */
           : attribute == 118 ? ordering
                              : 0;
  return device == 7 ? SUCCESS : INVALID_DEVICE;
}
int cuDevicePrimaryCtxRetain(void **made, int device) {
  *made = &context;
  return device == 7 ? SUCCESS : INVALID_DEVICE;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  return device == 7 ? SUCCESS : INVALID_DEVICE;
}
int cuCtxSetCurrent(void *wanted) { current = wanted; return SUCCESS; }

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes) {
  IN_CONTEXT;
  *total_bytes = total;
  *free_bytes = total - taken;
  return SUCCESS;
}
int cuMemAlloc_v2(Pointer *made, size_t size) {
  IN_CONTEXT;
  if (size > total - taken) return OUT_OF_MEMORY;
  char *start = (char *)calloc(1, size + 512) + 512; /* Never at a page. */
  taken += size;
  *made = (Pointer)start;
  return keep(allocated, start, size);
}
int cuMemFree_v2(Pointer start) {
  IN_CONTEXT;
  size_t size = forget(allocated, (void *)start);
  taken -= size;
  return size ? SUCCESS : INVALID_VALUE;
}
int cuMemHostRegister_v2(void *start, size_t size, unsigned flags) {
  IN_CONTEXT;
  return flags & ~9u ? INVALID_VALUE : keep(registered, start, size);
}
int cuMemHostUnregister(void *start) {
  IN_CONTEXT;
  return forget(registered, start) ? SUCCESS : INVALID_VALUE;
}

int cuStreamCreate(void **made, unsigned flags) {
  IN_CONTEXT;
  *made = (void *)++streams;
  return flags == 1 ? SUCCESS : INVALID_VALUE;
}
int cuStreamDestroy_v2(void *stream) {
  IN_CONTEXT;
  return (long)stream <= streams ? SUCCESS : INVALID_HANDLE;
}
int cuStreamSynchronize(void *stream) {
  IN_CONTEXT;
  run((long)stream, 0, 0);
  return SUCCESS;
}
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
  IN_CONTEXT;
  long number = (long)event;
  return flags ? INVALID_VALUE
               : ask((struct operation){(long)stream, WAIT, 0, 0, 0, number,
                                        recorded[number]});
}
int cuEventCreate(void **made, unsigned flags) {
  IN_CONTEXT;
  *made = (void *)++events;
  return flags == 3 && events < MAX ? SUCCESS : INVALID_VALUE;
}
int cuEventDestroy_v2(void *event) {
  IN_CONTEXT;
  return (long)event <= events ? SUCCESS : INVALID_HANDLE;
}
int cuEventRecord(void *event, void *stream) {
  IN_CONTEXT;
  long number = (long)event;
  return ask((struct operation){(long)stream, RECORD, 0, 0, 0, number,
                                ++recorded[number]});
}
/* Each question brings every stream on by an operation. */
int cuEventQuery(void *event) {
  IN_CONTEXT;
  long number = (long)event;
  if (passed[number] == recorded[number]) return SUCCESS;
  for (long stream = 1; stream <= streams; stream++) run_one(stream);
  return NOT_READY;
}
int cuEventSynchronize(void *event) {
  IN_CONTEXT;
  long number = (long)event;
  for (long stream = 1; stream <= streams; stream++)
    run(stream, number, recorded[number]);
  return SUCCESS;
}

static int copy(void *to, const void *from, size_t size, void *stream,
                const void *host) {
  if (getenv("FAKE_LOST")) return 719;
  if (within(registered, host, size))
    return ask((struct operation){(long)stream, COPY, to, from, size, 0, 0});
  run((long)stream, 0, 0); /* Of memory that is not registered: at once. */
  memcpy(to, from, size);
  return SUCCESS;
}
int cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t size, void *stream) {
  IN_CONTEXT;
  if (!within(allocated, (void *)to, size)) return INVALID_VALUE;
  return copy((void *)to, from, size, stream, from);
}
int cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t size, void *stream) {
  IN_CONTEXT;
  if (!within(allocated, (void *)from, size)) return INVALID_VALUE;
  return copy(to, (void *)from, size, stream, to);
}
int cuFlushGPUDirectRDMAWrites(int target, int scope) {
  IN_CONTEXT;
  if (getenv("FAKE_ORDERED")) return NOT_SUPPORTED;
  flushes++;
  return target == 0 && scope == 100 ? SUCCESS : INVALID_VALUE;
}
int cuMemGetHandleForAddressRange(void *handle, Pointer start, size_t size, int kind,
                                  unsigned long long flags) {
  IN_CONTEXT;
  if (start % 4096 || size % 4096 || kind != 1 || flags) return INVALID_VALUE;
  if (!within(allocated, (void *)start, size)) return INVALID_VALUE;
  *(int *)handle = memfd_create("dmabuf", 0);
  return SUCCESS;
}

int num_flushes(void) { return flushes; }

int cuGetErrorName(int error, const char **name) {
  *name = "CUDA_ERROR";
  return error ? SUCCESS : INVALID_VALUE;
}
int cuGetErrorString(int error, const char **text) {
  *text = error == OUT_OF_MEMORY ? "out of memory" : "it went wrong";
  return SUCCESS;
}
int cuGetProcAddress_v2(const char *name, void **found, int version,
                        unsigned long long flags, int *status) {
  char versioned[200];
  Dl_info here;
  dladdr((void *)cuInit, &here);
  void *library = dlopen(here.dli_fname, RTLD_NOW);
  snprintf(versioned, sizeof versioned, "%s_v2", name);
  *found = dlsym(library, versioned);
  if (!*found) *found = dlsym(library, name);
  if (status) *status = !*found;
  return *found && version && !flags ? SUCCESS : NOT_FOUND;
}
