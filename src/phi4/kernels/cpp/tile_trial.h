// Whether this process may use the processor's tiles.
#pragma once

namespace phi4 {

// Small products in tiles have the results of other instructions. Ends the process where there are no tiles.
bool tiles_agree();

// The processor has tiles of bytes and of bf16, the system lends them, and a trial in a process of its own succeeds.
bool tiles_work();

}  // namespace phi4
