// The kernels of the encoders, for Python.
#pragma once

#include <nanobind/nanobind.h>

namespace phi4 {

// Adds nothing where this build has none; whether the processor can run them is for Python to ask `levels` first.
void bind_encoders(nanobind::module_& module);

}  // namespace phi4
