/* A double of libnvidia-ml.so.1: the part of NVML's ABI that vmpack uses, over GPUs that a text file describes.
 *
 * The file is named by NVML_DOUBLE and is read again at each call, so a test changes the machine by changing it.
 * Lines are "KEY VALUE"; keys of GPU n begin with "n.", of its MIG instance m with "n.m.". Each call is noted in
 * the file of the same name with ".calls" behind it. Written for these tests from NVML's documented interface.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9
};
enum { TEXT = 512, WHOLE = 0xff };

typedef int result;
typedef struct handle *device;
typedef unsigned int u32;
typedef unsigned long long u64;

typedef struct { char legacy[16]; u32 domain, bus, device, id, subsystem; char bus_id[32]; } pci_info;
typedef struct { u64 total, free, used; } memory_info;
typedef struct { u32 gpu, memory; } utilization;
typedef struct { u32 pid; u64 used; u32 gpu_instance, compute_instance; } process_info;
typedef struct { u32 multiprocessors, copy, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices; u64 memory_mb; } attributes;
typedef union { double d; u32 u; unsigned long ul; u64 ull; long long sll; } value;
typedef struct { u32 instance; u64 time; value sm, memory, encoder, decoder; } vgpu_sample;

static char session[TEXT];
static int sessions;

static FILE *description(void) {
    const char *path = getenv("NVML_DOUBLE");
    return path ? fopen(path, "r") : NULL;
}

/* The value of the nth line with this key; 0 when there is none. */
static int look(const char *key, int nth, char *found) {
    char line[TEXT + 128];
    size_t length = strlen(key);
    FILE *file = description();
    int seen = 0;
    if (!file) return 0;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, key, length) == 0 && line[length] == ' ' && seen++ == nth) {
            snprintf(found, TEXT, "%s", line + length + 1);
            fclose(file);
            return 1;
        }
    }
    fclose(file);
    return 0;
}

static u64 number(const char *key, u64 otherwise) {
    char found[TEXT];
    return look(key, 0, found) ? strtoull(found, NULL, 0) : otherwise;
}

static void note(const char *call) {
    char path[TEXT];
    FILE *file;
    snprintf(path, sizeof path, "%s.calls", getenv("NVML_DOUBLE") ? getenv("NVML_DOUBLE") : "/dev/null");
    if ((file = fopen(path, "a"))) {
        fprintf(file, "%s\n", call);
        fclose(file);
    }
}

static void hang(const char *call) {
    char found[TEXT];
    struct timespec pause = {0, 5000000};
    while (look("hang", 0, found) && strcmp(found, call) == 0) nanosleep(&pause, NULL);
}

/* What every call but the opening ones meets first. */
static result enter(const char *call) {
    char now[TEXT] = "";
    note(call);
    hang(call);
    look("session", 0, now);
    if (!sessions || strcmp(now, session) != 0) return UNINITIALIZED;
    return (result)number("driver", OK);
}

static int gpu_of(device d) { return (int)(((size_t)d >> 8) & 0xff) - 1; }
static int mig_of(device d) { return (int)((size_t)d & 0xff); }
static device handle_of(int gpu, int mig) { return (device)(((size_t)gpu + 1) << 8 | (size_t)mig); }

static const char *key_of(device d, const char *name, char *key) {
    if (mig_of(d) == WHOLE) snprintf(key, TEXT, "%d.%s", gpu_of(d), name);
    else snprintf(key, TEXT, "%d.%d.%s", gpu_of(d), mig_of(d), name);
    return key;
}

static u64 number_of(device d, const char *name, u64 otherwise) {
    char key[TEXT];
    return number(key_of(d, name, key), otherwise);
}

static int text_of(device d, const char *name, char *found) {
    char key[TEXT];
    return look(key_of(d, name, key), 0, found);
}

/* What every call for one device meets: a lost GPU, a call that it does not support. */
static result meet(const char *call, device d) {
    char found[TEXT];
    result code = enter(call);
    if (code != OK) return code;
    if (gpu_of(d) < 0 || (u64)gpu_of(d) >= number("gpus", 0)) return INVALID_ARGUMENT;
    if ((code = (result)number_of(handle_of(gpu_of(d), WHOLE), "lost", OK)) != OK) return code;
    if (strstr(call, "GetHandle")) return OK;
    if (text_of(d, "unsupported", found) && (strcmp(found, "all") == 0 || strstr(found, call))) return NOT_SUPPORTED;
    return OK;
}

static result copy(const char *found, char *text, u32 size) {
    if (strlen(found) >= size) return INSUFFICIENT_SIZE;
    strcpy(text, found);
    return OK;
}

result nvmlInitWithFlags(u32 flags) {
    (void)flags;
    note(__func__);
    hang(__func__);
    if (number("gpus", ~0ULL) == ~0ULL) return DRIVER_NOT_LOADED;
    if (number("driver", OK) != OK) return (result)number("driver", OK);
    session[0] = 0;
    look("session", 0, session);
    sessions = 1;
    return OK;
}

result nvmlShutdown(void) {
    result code = enter(__func__);
    sessions = 0;
    return code == UNINITIALIZED ? code : OK;
}

const char *nvmlErrorString(result code) { return code == 999 ? "Unknown Error" : "an error of the double"; }

result nvmlDeviceGetCount_v2(u32 *count) {
    result code = enter(__func__);
    *count = (u32)number("gpus", 0);
    return code;
}

result nvmlDeviceGetHandleByIndex_v2(u32 index, device *d) {
    *d = handle_of((int)index, WHOLE);
    return meet("nvmlDeviceGetHandleByIndex", *d);
}

static result handle_by(const char *call, const char *name, const char *wanted, device *d) {
    char found[TEXT];
    result code = enter(call);
    if (code != OK) return code;
    for (u64 gpu = 0; gpu < number("gpus", 0); gpu++) {
        *d = handle_of((int)gpu, WHOLE);
        if (text_of(*d, name, found) && strcasecmp(found, wanted) == 0) return meet(call, *d);
    }
    return NOT_FOUND;
}

result nvmlDeviceGetHandleByUUID(const char *uuid, device *d) { return handle_by(__func__, "uuid", uuid, d); }

result nvmlDeviceGetHandleByPciBusId_v2(const char *address, device *d) {
    char found[TEXT];
    unsigned domain, bus, slot;
    if (sscanf(address, "%x:%x:%x", &domain, &bus, &slot) != 3) return INVALID_ARGUMENT;
    snprintf(found, sizeof found, "%08X:%02X:%02X.0", domain, bus, slot);
    return handle_by(__func__, "pci", found, d);
}

result nvmlDeviceGetIndex(device d, u32 *index) {
    *index = (u32)gpu_of(d);
    return meet(__func__, d);
}

static result tell(const char *call, device d, const char *name, char *text, u32 size) {
    char found[TEXT];
    result code = meet(call, d);
    if (code != OK) return code;
    return text_of(d, name, found) ? copy(found, text, size) : NOT_SUPPORTED;
}

result nvmlDeviceGetName(device d, char *name, u32 size) { return tell(__func__, d, "name", name, size); }
result nvmlDeviceGetUUID(device d, char *uuid, u32 size) { return tell(__func__, d, "uuid", uuid, size); }

result nvmlDeviceGetPciInfo_v3(device d, pci_info *info) {
    char found[TEXT];
    result code = tell(__func__, d, "pci", found, TEXT);
    if (code != OK) return code;
    memset(info, 0, sizeof *info);
    sscanf(found, "%x:%x:%x", &info->domain, &info->bus, &info->device);
    snprintf(info->bus_id, sizeof info->bus_id, "%.31s", found);
    snprintf(info->legacy, sizeof info->legacy, "%.15s", found + 4);
    return OK;
}

static result count(const char *call, device d, const char *name, u32 *found) {
    result code = meet(call, d);
    if (code == OK && number_of(d, name, ~0ULL) == ~0ULL) return NOT_SUPPORTED;
    *found = (u32)number_of(d, name, 0);
    return code;
}

result nvmlDeviceGetNumGpuCores(device d, u32 *cores) { return count(__func__, d, "cores", cores); }
result nvmlDeviceGetPowerUsage(device d, u32 *mw) { return count(__func__, d, "power_mw", mw); }
result nvmlDeviceGetEnforcedPowerLimit(device d, u32 *mw) { return count(__func__, d, "power_limit_mw", mw); }
result nvmlDeviceGetMaxMigDeviceCount(device d, u32 *most) { return count(__func__, d, "mig_max", most); }
result nvmlDeviceGetGpuInstanceId(device d, u32 *id) { return count(__func__, d, "gpu_instance", id); }

result nvmlDeviceGetTemperature(device d, int sensor, u32 *celsius) {
    return sensor == 0 ? count(__func__, d, "temperature", celsius) : INVALID_ARGUMENT;
}

result nvmlDeviceGetEncoderUtilization(device d, u32 *percent, u32 *period_us) {
    *period_us = 1000000;
    return count(__func__, d, "encoder", percent);
}

result nvmlDeviceGetDecoderUtilization(device d, u32 *percent, u32 *period_us) {
    *period_us = 1000000;
    return count(__func__, d, "decoder", percent);
}

result nvmlDeviceGetMemoryInfo(device d, memory_info *memory) {
    result code = meet(__func__, d);
    memory->total = number_of(d, "memory_total", 0);
    memory->used = number_of(d, "memory_used", 0);
    memory->free = memory->total - memory->used;
    return code;
}

result nvmlDeviceGetUtilizationRates(device d, utilization *use) {
    result code = count(__func__, d, "utilization", &use->gpu);
    use->memory = (u32)number_of(d, "memory_utilization", 0);
    return code;
}

result nvmlDeviceGetTotalEccErrors(device d, int kind, int counter, u64 *errors) {
    u32 found = 0;
    result code = count(__func__, d, kind == 0 ? "ecc_corrected" : "ecc_uncorrected", &found);
    *errors = found;
    return counter == 0 ? code : INVALID_ARGUMENT;
}

/* Lines "n.compute PID BYTES"; too little room is told with the room that is needed. */
static result processes(const char *call, device d, const char *name, u32 *room, process_info *into) {
    char key[TEXT], found[TEXT];
    u32 there = 0;
    result code = meet(call, d);
    if (code != OK) return code;
    key_of(d, name, key);
    while (look(key, (int)there, found)) {
        if (into && there < *room) {
            memset(into + there, 0xff, sizeof *into);
            sscanf(found, "%u %llu", &into[there].pid, &into[there].used);
        }
        there++;
    }
    code = there > *room ? INSUFFICIENT_SIZE : OK;
    *room = there;
    return code;
}

result nvmlDeviceGetComputeRunningProcesses_v3(device d, u32 *room, process_info *into) {
    return processes(__func__, d, "compute", room, into);
}

result nvmlDeviceGetGraphicsRunningProcesses_v3(device d, u32 *room, process_info *into) {
    return processes(__func__, d, "graphics", room, into);
}

result nvmlDeviceGetMPSComputeRunningProcesses_v3(device d, u32 *room, process_info *into) {
    return processes(__func__, d, "mps", room, into);
}

result nvmlDeviceGetMigMode(device d, u32 *current, u32 *pending) {
    result code = count(__func__, d, "mig", current);
    *pending = *current;
    return code;
}

result nvmlDeviceGetMigDeviceHandleByIndex(device d, u32 index, device *part) {
    char found[TEXT];
    result code = meet(__func__, d);
    *part = handle_of(gpu_of(d), (int)index);
    if (code != OK) return code;
    return text_of(*part, "uuid", found) ? OK : NOT_FOUND;
}

result nvmlDeviceGetAttributes_v2(device d, attributes *told) {
    memset(told, 0, sizeof *told);
    return count(__func__, d, "multiprocessors", &told->multiprocessors);
}

/* Lines "n.vgpu INSTANCE"; keys of an instance begin with "vgpu.INSTANCE.". */
result nvmlDeviceGetActiveVgpus(device d, u32 *room, u32 *instances) {
    char key[TEXT], found[TEXT];
    u32 there = 0, had = *room;
    result code = meet(__func__, d);
    if (code != OK) return code;
    key_of(d, "vgpu", key);
    for (; look(key, (int)there, found); there++)
        if (instances && there < had) instances[there] = (u32)strtoul(found, NULL, 0);
    *room = there;
    return there > had ? INSUFFICIENT_SIZE : OK;
}

static result vgpu(const char *call, u32 instance, const char *name, char *found) {
    char key[TEXT];
    result code = enter(call);
    if (code != OK) return code;
    snprintf(key, sizeof key, "vgpu.%u.%s", instance, name);
    return look(key, 0, found) ? OK : NOT_FOUND;
}

result nvmlDeviceGetVgpuUtilization(device d, u64 since_us, int *kind, u32 *room, vgpu_sample *samples) {
    char found[TEXT];
    u32 instances[16], there = 16, told = 0, had = *room;
    result code = nvmlDeviceGetActiveVgpus(d, &there, instances);
    if (code != OK) return code;
    *kind = 1;
    for (u32 n = 0; n < there; n++)
        if (vgpu(__func__, instances[n], "utilization", found) == OK) {
            if (samples && told < had) {
                memset(samples + told, 0, sizeof *samples);
                samples[told].instance = instances[n];
                samples[told].time = since_us + 1;
                samples[told].sm.u = (u32)strtoul(found, NULL, 0);
            }
            told++;
        }
    *room = told;
    return told > had ? INSUFFICIENT_SIZE : OK;
}

result nvmlVgpuInstanceGetVmID(u32 instance, char *id, u32 size, int *kind) {
    char found[TEXT];
    result code = vgpu(__func__, instance, "vm", found);
    *kind = 1;
    return code == OK ? copy(found, id, size) : code;
}

result nvmlVgpuInstanceGetUUID(u32 instance, char *uuid, u32 size) {
    char found[TEXT];
    result code = vgpu(__func__, instance, "uuid", found);
    return code == OK ? copy(found, uuid, size) : code;
}

result nvmlVgpuInstanceGetFbUsage(u32 instance, u64 *bytes) {
    char found[TEXT];
    result code = vgpu(__func__, instance, "memory_used", found);
    if (code == OK) *bytes = strtoull(found, NULL, 0);
    return code;
}

result nvmlVgpuInstanceGetType(u32 instance, u32 *type) {
    *type = instance;
    return enter(__func__);
}

result nvmlVgpuInstanceGetGpuInstanceId(u32 instance, u32 *id) {
    char found[TEXT];
    result code = vgpu(__func__, instance, "gpu_instance", found);
    *id = code == OK ? (u32)strtoul(found, NULL, 0) : 0xffffffffu;
    return code == NOT_FOUND ? OK : code;
}

result nvmlVgpuTypeGetName(u32 type, char *name, u32 *size) {
    char found[TEXT];
    result code = vgpu(__func__, type, "name", found);
    return code == OK ? copy(found, name, *size) : code;
}

result nvmlVgpuTypeGetFramebufferSize(u32 type, u64 *bytes) {
    char found[TEXT];
    result code = vgpu(__func__, type, "memory_total", found);
    if (code == OK) *bytes = strtoull(found, NULL, 0);
    return code;
}
