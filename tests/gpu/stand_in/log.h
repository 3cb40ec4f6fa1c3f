// The log that all stand-ins share: one line for each call, fields separated by tabs. It goes to
// the file STAND_IN_LOG; without the variable nothing is logged. A line of a call during the
// capture of a graph begins with "captured".
#pragma once

#define API extern "C" __attribute__((visibility("default")))

API void stand_in_log(const char* format, ...) __attribute__((format(printf, 1, 2)));
