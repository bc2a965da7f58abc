// The part of the DLPack interface (https://dmlc.github.io/dlpack, ABI 0.x "dltensor" capsules) that FOCUS reads.
#pragma once

#include <cstdint>

namespace focus::dlpack {

enum DeviceType : int32_t { kCpu = 1, kCuda = 2 };
enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2 };

struct Device {
    int32_t type;
    int32_t index;
};

struct DataType {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
};

struct Tensor {
    void* data;
    Device device;
    int32_t rank;
    DataType type;
    int64_t* shape;
    int64_t* strides;  // in elements; null when contiguous
    uint64_t byte_offset;
};

struct ManagedTensor {
    Tensor tensor;
    void* context;
    void (*deleter)(ManagedTensor*);
};

}  // namespace focus::dlpack
