#pragma once

#include "vst3.h"

// A new effect with one reference, or null without memory. Its backend is Python's where this thread
// loads for it, else the server's.
vst3::Component* make_effect();
