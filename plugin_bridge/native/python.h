// What Python calls through ctypes, in the copy of this library that the host has loaded too.
#pragma once

#include <cstdint>

extern "C" {

// Functions of Python's, and of its C interface.
struct Bsmamba2Python {
  int32_t (*latency_samples)(int32_t slot, double sample_rate);
  // Begins a signal. What goes wrong is told by process.
  void (*start)(int32_t slot, double sample_rate, int32_t channels);
  // Null, or a class of exception that Python keeps alive: it is raised when the thread is back in
  // Python. A null block asks for the one that says that no signal was begun.
  void* (*process)(int32_t slot, float* block, int32_t channels, int32_t samples);
  void (*closed)(int32_t slot);
  void* (*thread_state)();                                    // PyGILState_GetThisThreadState
  int (*acquire)();                                           // PyGILState_Ensure
  void (*release)(int);                                       // PyGILState_Release
  int (*raise_later)(unsigned long thread, void* exception);  // PyThreadState_SetAsyncExc
  unsigned long (*thread)();                                  // PyThread_get_thread_ident
  int (*call_later)(int (*)(void*), void*);                   // Py_AddPendingCall
};

void bsmamba2_attach(const Bsmamba2Python* functions);
void bsmamba2_detach();
// Instances that the calling thread makes belong to this slot, and are silent until they are opened.
void bsmamba2_load(int32_t slot);
// Ends loading on this thread, and opens the slot.
void bsmamba2_open(int32_t slot);
// To be called as a kept exception is raised.
void bsmamba2_raised();
// Instances alive in this process, of any kind.
int32_t bsmamba2_instances();
// The state that hosts save for the slot; reading returns its bytes, of which at most size are put.
void bsmamba2_set_state(int32_t slot, const char* bytes, int32_t size);
int32_t bsmamba2_get_state(int32_t slot, char* bytes, int32_t size);
}

// One instance more or less; see bsmamba2_instances.
void count_instance(int change);
