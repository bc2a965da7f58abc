// Compiler vocabulary shared by host and device code.
//
// A `.cu` file of FOCUS compiles in two ways: with nvcc for the card, and with g++ under FOCUS_EMULATE_CUDA for the tests, where one real
// thread stands for each CUDA thread of a block (see emulation.h). `*_math.h` headers hold the arithmetic of an op once, as FOCUS_HD
// functions that the CPU and the CUDA kernel both call.
#pragma once

#if defined(__CUDACC__)
#define FOCUS_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define FOCUS_INLINE __attribute__((always_inline))  // see simd.h for what depends on it
#define FOCUS_HD FOCUS_INLINE inline
#else
#define FOCUS_INLINE
#define FOCUS_HD inline
#endif
