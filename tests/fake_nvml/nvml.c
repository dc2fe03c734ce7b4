// Copyright: (c) 2026, confidential.gpu contributors
// SPDX-License-Identifier: Apache-2.0
//
// A libnvidia-ml.so.1 without a GPU: what a device plugin asks of NVIDIA's, by its documented interface. What it
// answers stands in the folder `nvml` beside the library itself:
//
//   init    the error of nvmlInit, a number; no file: none
//   lost    the error of everything else
//   gpus    a line each: UUID, bus id, minor number, own error, name
//   cc      environment, ccFeature, devToolsMode; no file: not supported
//   ready   GpusReadyState
//   recovery  the recovery action of the GPU with the minor number of the first column, in the second; no file: not supported
//   xids    a FIFO: each line, UUID and number, is one event; an unknown UUID is an event of no GPU

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TIMEOUT = 10, UNKNOWN = 999 };
enum { XID_CRITICAL = 8, RECOVERY_ACTION = 230, UNSIGNED_INT = 1 };
// Of this driver are the files that nvidia-ctk looks for.
static const char DRIVER[] = "595.71.05";

typedef struct { char uuid[96], bus[32], name[64]; unsigned minor; int error; } gpu;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char busId[32]; } pci_info;
typedef struct { void *device; unsigned long long type, data; unsigned gi, ci; } event_data;
typedef struct { unsigned id, scope; long long time, latency; int type, error; unsigned long long value; } field_value;
typedef struct { unsigned environment, feature, tools; } cc_state;

static FILE *state(const char *name) {
    Dl_info info;
    char own[PATH_MAX], path[PATH_MAX + 64];
    if (!dladdr((void *)&state, &info)) return NULL;
    snprintf(own, sizeof own, "%s", info.dli_fname);
    snprintf(path, sizeof path, "%s/nvml/%s", dirname(own), name);
    return fopen(path, strcmp(name, "xids") ? "r" : "r+");
}

static int number(const char *name, int absent) {
    int value = absent;
    FILE *file = state(name);
    if (file) {
        if (fscanf(file, "%d", &value) != 1) value = absent;
        fclose(file);
    }
    return value;
}

// How many there are; the one with this index is stored.
static int gpus(int index, gpu *found) {
    gpu one;
    int count = 0;
    FILE *file = state("gpus");
    if (!file) return 0;
    while (fscanf(file, "%95s %31s %u %d %63[^\n]", one.uuid, one.bus, &one.minor, &one.error, one.name) == 5)
        if (count++ == index && found) *found = one;
    fclose(file);
    return count;
}

// A handle is the index and one.
static int known(void *device, gpu *found) {
    int error = number("lost", SUCCESS);
    intptr_t index = (intptr_t)device - 1;
    if (error) return error;
    if (index < 0 || index >= gpus((int)index, found)) return INVALID_ARGUMENT;
    return found->error;
}

static int text(char *to, unsigned length, const char *from) {
    snprintf(to, length, "%s", from);
    return SUCCESS;
}

const char *nvmlErrorString(int error) {
    static char words[64];
    snprintf(words, sizeof words, "Error %d of the fake library", error);
    return words;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return number("init", SUCCESS); }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = (unsigned)gpus(-1, NULL);
    return number("lost", SUCCESS);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    gpu one;
    *device = (void *)((intptr_t)index + 1);
    return known(*device, &one);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    gpu one;
    int error = number("lost", SUCCESS), index = 0;
    while (!error && gpus(index, &one) > index && strcmp(one.uuid, uuid)) index++;
    *device = (void *)((intptr_t)index + 1);
    return error ? error : gpus(index, &one) > index ? one.error : NOT_FOUND;
}

int nvmlDeviceGetIndex(void *device, unsigned *index) {
    gpu one;
    *index = (unsigned)((intptr_t)device - 1);
    return known(device, &one);
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    int error = number("lost", SUCCESS);
    return error ? error : text(version, length, DRIVER);
}

int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) {
    gpu one;
    *count = 0;
    return known(device, &one);
}

int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *pending) {
    gpu one;
    int error = known(device, &one);
    *now = *pending = 0;
    return error ? error : NOT_SUPPORTED;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
    gpu one;
    int error = known(device, &one);
    return error ? error : text(uuid, length, one.uuid);
}

int nvmlDeviceGetName(void *device, char *name, unsigned length) {
    gpu one;
    int error = known(device, &one);
    return error ? error : text(name, length, one.name);
}

int nvmlDeviceGetMinorNumber(void *device, unsigned *minor) {
    gpu one;
    int error = known(device, &one);
    if (!error) *minor = one.minor;
    return error;
}

int nvmlDeviceGetPciInfo_v3(void *device, pci_info *info) {
    gpu one;
    int error = known(device, &one);
    memset(info, 0, sizeof *info);
    return error ? error : text(info->busId, sizeof info->busId, one.bus);
}

int nvmlDeviceGetFieldValues(void *device, int count, field_value *values) {
    gpu one;
    int error = known(device, &one);
    for (int i = 0; !error && i < count; i++) {
        unsigned minor, action, found = 0;
        FILE *file = state("recovery");
        values[i].error = NOT_SUPPORTED;
        if (!file || values[i].id != RECOVERY_ACTION) continue;
        while (fscanf(file, "%u %u", &minor, &action) == 2) if (minor == one.minor) found = action;
        fclose(file);
        values[i].error = SUCCESS;
        values[i].type = UNSIGNED_INT;
        values[i].value = found;
    }
    return error;
}

int nvmlSystemGetConfComputeState(cc_state *found) {
    FILE *file = state("cc");
    int read;
    if (!file) return NOT_SUPPORTED;
    read = fscanf(file, "%u %u %u", &found->environment, &found->feature, &found->tools);
    fclose(file);
    return read == 3 ? SUCCESS : UNKNOWN;
}

int nvmlSystemGetConfComputeGpusReadyState(unsigned *ready) {
    *ready = (unsigned)number("ready", 0);
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *set) {
    gpu one;
    (void)types;
    (void)set;
    return known(device, &one);
}

int nvmlEventSetCreate(void **set) {
    FILE *fifo = state("xids");
    if (!fifo) return UNKNOWN;
    setvbuf(fifo, NULL, _IONBF, 0);
    *set = fifo;
    return SUCCESS;
}

int nvmlEventSetFree(void *set) {
    fclose(set);
    return SUCCESS;
}

int nvmlEventSetWait_v2(void *set, event_data *data, unsigned wait_ms) {
    struct pollfd fifo = {.fd = fileno(set), .events = POLLIN};
    char uuid[96];
    gpu one;
    int index = 0, error = number("lost", SUCCESS);
    if (error) return error;
    memset(data, 0, sizeof *data);
    if (poll(&fifo, 1, (int)wait_ms) != 1) return TIMEOUT;
    if (fscanf(set, "%95s %llu", uuid, &data->data) != 2) return UNKNOWN;
    data->type = XID_CRITICAL;
    data->gi = data->ci = UINT32_MAX;
    while (gpus(index, &one) > index && strcmp(one.uuid, uuid)) index++;
    data->device = gpus(index, &one) > index ? (void *)((intptr_t)index + 1) : NULL;
    return SUCCESS;
}
