/* A mock of NVIDIA's driver with two cards or none: the functions that devices/nvidia.py calls. */
#include <stddef.h>
#include <string.h>

#ifndef CARDS
#define CARDS 2
#endif

int cuInit(unsigned flags) { return flags ? 1 : CARDS ? 0 : 100; }
int cuDriverGetVersion(int* version) { return *version = 13010, 0; }
int cuDeviceGetCount(int* count) { return *count = CARDS, 0; }
int cuDeviceGet(int* device, int index) { return *device = 70 + index, 0; }
int cuDeviceGetName(char* name, int size, int device) {
  return strncpy(name, device == 70 ? "Fast Card" : "Slow Card", size), 0;
}
int cuDeviceTotalMem_v2(size_t* bytes, int device) { return *bytes = 80ul << 30, device < 70; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  return *value = attribute == 75 ? device - 61 : attribute == 76 ? 3 : -1, 0;
}
int cuGetErrorString(int status, const char** text) {
  return status == 100 ? (*text = "no CUDA-capable device is detected", 0) : 1;
}

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  return strncpy(text, "580.65.06", size), 0;
}
