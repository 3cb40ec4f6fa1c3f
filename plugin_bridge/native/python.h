// The functions that Python calls through ctypes, in the library that the host has also loaded.
#pragma once

#include <cstdint>

extern "C" {

// Functions of our Python code and of Python's C interface.
struct Bsmamba2Python {
  int32_t (*latency_samples)(int32_t slot, double sample_rate);
  // Starts a signal. The next process reports its error.
  void (*start)(int32_t slot, double sample_rate, int32_t channels);
  // Returns null, or an exception class that Python keeps alive; it is raised when the thread is
  // back in Python. A null block means that no signal was started, and returns the exception for
  // that.
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
// Instances that the calling thread creates belong to this slot, and are silent until it is opened.
void bsmamba2_load(int32_t slot);
// Ends loading on this thread and opens the slot.
void bsmamba2_open(int32_t slot);
// Called by Python when it raises a pending exception.
void bsmamba2_raised();
// Returns how many instances are alive in this process, with any backend.
int32_t bsmamba2_instances();
// The state that hosts save for the slot. Reading returns its size and copies at most size bytes.
void bsmamba2_set_state(int32_t slot, const char* bytes, int32_t size);
int32_t bsmamba2_get_state(int32_t slot, char* bytes, int32_t size);
}

// Adds change to the number of instances; see bsmamba2_instances.
void count_instance(int change);
