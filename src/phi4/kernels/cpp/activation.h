// What an encoder's linear may be followed by.
#pragma once

namespace phi4 {

enum class Activation { none, gelu, silu, relu };  // the gelu with tanh

}  // namespace phi4
