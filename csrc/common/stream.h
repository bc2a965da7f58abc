// The CUDA stream type, for headers that declare launchers without needing the CUDA headers.
#pragma once

struct CUstream_st;

namespace focus {

using Stream = CUstream_st*;  // what cudaStream_t is

}  // namespace focus
