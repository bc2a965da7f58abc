// Runs the CUDA kernels beside the CPU kernels on small made-up inputs, without Python or torch: emulated under the address, undefined
// behaviour and thread sanitizers (test_sanitizers.py), on a card under compute-sanitizer (scripts/gpu_check.sh).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <type_traits>
#include <vector>

#include "common/face_scratch.h"
#include "common/tensor_view.h"
#include "topology/topology.h"

#if !defined(FOCUS_EMULATE_CUDA)
#include <cuda_runtime.h>
#endif

namespace focus::exercise {

// Memory of the host, and on a card as much there. Filled with ones bits: what a kernel forgets to write shows as NaN or -1. What the host
// has written nothing to is not copied to the card, so that initcheck sees what a kernel reads before it is written.
struct Memory {
    explicit Memory(size_t size) : bytes(std::max<size_t>(size, 1)), host(std::malloc(bytes)) {
        std::memset(host, 0xff, bytes);
#if !defined(FOCUS_EMULATE_CUDA)
        if (cudaMalloc(&device, bytes) != cudaSuccess) std::exit(1);
#endif
        all()[host] = this;
    }
    ~Memory() {
        all().erase(host);
        std::free(host);
#if !defined(FOCUS_EMULATE_CUDA)
        cudaFree(device);
#endif
    }
    Memory(Memory const&) = delete;
    Memory& operator=(Memory const&) = delete;

    static std::map<void*, Memory*>& all() {
        static std::map<void*, Memory*> memories;
        return memories;
    }

    size_t bytes;
    void *host, *device = nullptr;
    bool written = false, used = false;  // by the host; by a kernel since the last wait
};

// The same parameters with the addresses of the card in place of those of the host: every word of them that is one.
template <typename Parameters>
Parameters on_card(Parameters const& parameters) {
    static_assert(std::is_trivially_copyable_v<Parameters> && sizeof(Parameters) % sizeof(void*) == 0);
    Parameters moved = parameters;
#if !defined(FOCUS_EMULATE_CUDA)
    for (size_t at = 0; at < sizeof(Parameters); at += sizeof(void*)) {
        void* word;
        std::memcpy(&word, reinterpret_cast<char const*>(&parameters) + at, sizeof(word));
        auto const found = Memory::all().find(word);
        if (found == Memory::all().end()) continue;
        Memory& memory = *found->second;
        if (memory.written && cudaMemcpy(memory.device, memory.host, memory.bytes, cudaMemcpyHostToDevice) != cudaSuccess) std::exit(1);
        memory.used = true;
        std::memcpy(reinterpret_cast<char*>(&moved) + at, &memory.device, sizeof(memory.device));
    }
#endif
    return moved;
}

// Brings back what kernels have written.
inline void wait_for_device() {
#if !defined(FOCUS_EMULATE_CUDA)
    cudaError_t error = cudaDeviceSynchronize();
    for (auto const& [host, memory] : Memory::all()) {
        if (!memory->used) continue;
        if (error == cudaSuccess) error = cudaMemcpy(host, memory->device, memory->bytes, cudaMemcpyDeviceToHost);
        memory->used = false;
        memory->written = true;
    }
    if (error != cudaSuccess) {
        std::printf("CUDA: %s\n", cudaGetErrorString(error));
        std::exit(1);
    }
#endif
}

template <typename T>
class Buffer {
  public:
    explicit Buffer(int64_t count) : count_(count), memory_(count * sizeof(T)) {}
    explicit Buffer(std::vector<T> const& values) : Buffer(static_cast<int64_t>(values.size())) {
        std::copy(values.begin(), values.end(), data());
    }

    T* data() {
        memory_.written = true;
        return address();
    }
    T& operator[](int64_t i) { return data()[i]; }
    int64_t count() const { return count_; }

    template <typename... Sizes>
    TensorView<T, sizeof...(Sizes)> view(Sizes... sizes) {
        return {address(), {static_cast<int64_t>(sizes)...}};
    }
    template <typename... Sizes>
    TensorView<T const, sizeof...(Sizes)> input(Sizes... sizes) {
        return {data(), {static_cast<int64_t>(sizes)...}};
    }

  private:
    T* address() { return static_cast<T*>(memory_.host); }

    int64_t count_;
    Memory memory_;
};

inline std::vector<float> random_floats(int64_t count, float low, float high, unsigned seed) {
    std::minstd_rand generator(seed);
    std::vector<float> values(count);
    for (float& value : values) {  // not uniform_real_distribution: its values differ between standard libraries
        value = low + (high - low) * static_cast<float>((generator() >> 8) & 0xffff) / 65536.0f;
    }
    return values;
}

extern int failures;
inline void expect(bool holds, char const* what) {
    if (!holds) ++failures;
    std::printf("  %s %s\n", holds ? "ok  " : "FAIL", what);
}

template <typename T>
void expect_same_bits(Buffer<T>& a, Buffer<T>& b, char const* what) {
    expect(std::memcmp(a.data(), b.data(), a.count() * sizeof(T)) == 0, what);
}

// As vectors: |a - b| <= tolerance |b|. Single-precision sums in different orders differ by a few roundings.
inline void expect_close(Buffer<float>& a, Buffer<float>& b, char const* what, double tolerance = 1e-5) {
    double difference = 0.0, norm = 0.0;
    for (int64_t i = 0; i < a.count(); ++i) {
        difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
        norm += double(b[i]) * b[i];
    }
    expect(norm > 0.0 && std::sqrt(difference) <= tolerance * std::sqrt(norm), what);  // false for NaN
}

// The image is large enough for boxes that are cut into pieces (common/pixel_boxes.h).
constexpr int64_t kBatch = 2;
constexpr int kScale = kPiecePixels > 64 ? 8 : 1;
constexpr int64_t kHeight = 18 * kScale, kWidth = 22 * kScale, kPixels = kBatch * kHeight * kWidth;

// A wavy sheet of small triangles in front of two large quads, one of which lacks a vertex (NaN).
struct Mesh {
    static constexpr int kSide = 5;
    static constexpr int64_t kVertices = kSide * kSide + 8, kFaces = 2 * (kSide - 1) * (kSide - 1) + 4;

    Buffer<float> vertices{kBatch * kVertices * 3};  // screen space
    Buffer<int32_t> faces{kFaces * 3}, offsets{kVertices + 1}, corners{kFaces * 3};

    Mesh();
};

struct Exercise {
    Exercise(char const* name, void (*run)());
};

}  // namespace focus::exercise
