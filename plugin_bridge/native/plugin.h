#pragma once

#include "vst3.h"

// Creates an effect with one reference; null if out of memory. It has the Python backend if this
// thread is loading a plugin for Python's Separate, else the server backend.
vst3::Component* make_effect();
