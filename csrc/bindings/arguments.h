// Everything that crosses from Python is checked here, and nowhere else in C++: a kernel may assume its views.
//
// Tensors arrive as DLPack capsules. A capsule is only borrowed for the duration of the call: it keeps its name, and torch frees it.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>

#include "bindings/dlpack.h"
#include "common/face_scratch.h"
#include "common/simd.h"
#include "common/tensor_view.h"

namespace focus::bindings {

namespace py = pybind11;

// Where a call runs: the device of its first tensor, which all the others must share.
struct Target {
    bool cuda = false;
    int device_index = 0;
    int threads = 1;            // CPU
    std::uintptr_t stream = 0;  // CUDA
};

constexpr int64_t kAny = -1;  // a size that is not fixed by the other arguments

inline std::string shape_text(int64_t const* shape, int rank) {
    std::string text = "[";
    for (int i = 0; i < rank; ++i) {
        if (i) text += ", ";
        text += shape[i] == kAny ? std::string("any") : std::to_string(shape[i]);
    }
    return text + "]";
}

class Arguments {
  public:
    Arguments(char const* op, int threads, std::uintptr_t stream) : op_(op) {
        constexpr int kMostThreads = 1024;
        target_.threads = std::min(std::max(threads, 1), kMostThreads);
        target_.stream = stream;
    }

    Target const& target() const { return target_; }

    // A required tensor. `expected` holds a size per axis or kAny; the sizes found are in the view. A single number may come without axes.
    template <typename T, int Rank>
    TensorView<T, Rank> view(char const* name, py::handle object, std::array<int64_t, Rank> const& expected) {
        dlpack::Tensor const& tensor = unpack(name, object);
        using Scalar = std::remove_const_t<T>;
        uint8_t const code = std::is_floating_point_v<Scalar> ? dlpack::kFloat : std::is_signed_v<Scalar> ? dlpack::kInt : dlpack::kUInt;
        if (tensor.type.code != code || tensor.type.bits != sizeof(Scalar) * 8 || tensor.type.lanes != 1) {
            fail_type(name, "expected " + type_text(code, sizeof(Scalar) * 8) + ", got " + type_text(tensor.type.code, tensor.type.bits));
        }
        constexpr int64_t kOne[] = {1};
        bool const is_scalar = Rank == 1 && expected[0] == 1 && tensor.rank == 0;
        int64_t const* const shape = is_scalar ? kOne : tensor.shape;
        bool matches = is_scalar || tensor.rank == Rank;
        for (int i = 0; matches && i < Rank; ++i) matches = shape[i] >= 0 && (expected[i] == kAny || shape[i] == expected[i]);
        if (!matches) {
            fail(name, "expected shape " + shape_text(expected.data(), Rank) + ", got " + shape_text(tensor.shape, tensor.rank));
        }
        TensorView<T, Rank> result;
        int64_t stride = 1, bytes = 0;
        bool contiguous = true;
        for (int i = Rank - 1; i >= 0; --i) {
            result.size[i] = shape[i];
            contiguous &= !tensor.strides || shape[i] == 1 || tensor.strides[i] == stride;
            if (__builtin_mul_overflow(stride, shape[i] ? shape[i] : 1, &stride) ||
                __builtin_mul_overflow(stride, static_cast<int64_t>(sizeof(T)), &bytes)) {
                fail(name, "has more bytes than a 64-bit count holds");
            }
        }
        bind_device(name, tensor.device);
        if (result.count() == 0) {
            result.data = reinterpret_cast<T*>(alignof(T));  // never read: distinct from "not given"
            return result;                                   // and whatever its strides
        }
        if (!contiguous) fail(name, "expected a contiguous tensor; call .contiguous() first");
        std::uintptr_t const address = reinterpret_cast<std::uintptr_t>(tensor.data) + tensor.byte_offset;
        if (!tensor.data) fail(name, "has no memory");
        if (address % alignof(T)) fail(name, "is not aligned to its elements; call .clone() first");
        result.data = reinterpret_cast<T*>(address);
        return result;
    }

    // The same, where None gives a view that is false.
    template <typename T, int Rank>
    TensorView<T, Rank> optional(char const* name, py::handle object, std::array<int64_t, Rank> const& expected) {
        if (object.is_none()) return {};
        return view<T, Rank>(name, object, expected);
    }

    // Memory that only the CUDA kernels need: None on the CPU. After the tensors of element type T.
    template <typename T, typename Element, int Rank>
    TensorView<Element, Rank> scratch(char const* name, py::handle object, std::array<int64_t, Rank> const& expected) {
        if (!runs_on_cuda<T>()) return {};
        return view<Element, Rank>(name, object, expected);
    }

    // Sums that a kernel makes on its way to a loss: in torch's memory on CUDA, in this call's own on the CPU, where None is given.
    // After the tensors of element type T.
    template <typename T, int Rank>
    TensorView<double, Rank> partial_sums(py::handle object, std::array<int64_t, Rank> const& sizes) {
        if (runs_on_cuda<T>()) return view<double, Rank>("partial_sums", object, sizes);
        TensorView<double, Rank> result;
        std::copy(sizes.begin(), sizes.end(), result.size);
        sums_.reset(new double[result.count()]);
        result.data = sums_.get();
        return result;
    }

    // Which kernels a call takes. The emulated build sends the float32 of the CPU to the CUDA kernels.
    template <typename T>
    bool runs_on_cuda() const {
#if defined(FOCUS_EMULATE_CUDA)
        return std::is_same_v<T, float>;
#else
        return target_.cuda;
#endif
    }

    // Whether `object` holds float64 (the CPU's gradcheck path) rather than float32.
    bool is_double(char const* name, py::handle object) {
        dlpack::DataType const type = unpack(name, object).type;
        return type.code == dlpack::kFloat && type.bits == 64;
    }

    // Every entry in [low, high]; read on the CPU only: on CUDA it would cost a synchronisation (docs/architecture.md).
    template <int Rank>
    void check_range(char const* name, TensorView<int32_t const, Rank> const& view, int64_t low, int64_t high) const {
        int64_t const count = view.count();
        if (target_.cuda || count == 0) return;
        int32_t range[2];
        vectorized([&]() FOCUS_INLINE {  // each call checks the whole mesh: locals, so that it becomes vector code
            int32_t const* const data = view.data;
            int32_t smallest = data[0], largest = data[0];
            for (int64_t i = 0, n = count; i < n; ++i) {
                smallest = data[i] < smallest ? data[i] : smallest;
                largest = data[i] > largest ? data[i] : largest;
            }
            range[0] = smallest;
            range[1] = largest;
        });
        if (range[0] >= low && range[1] <= high) return;
        int64_t outside = 0;
        for (int64_t i = 0; i < count; ++i) outside += view.data[i] < low || view.data[i] > high;
        fail(name, "has " + std::to_string(outside) + " of " + std::to_string(count) + " entries outside [" + std::to_string(low) + ", " +
                       std::to_string(high) + "]");
    }

    // Corners, 3 * face + corner, are int32.
    void check_face_count(int64_t face_count) const {
        if (face_count > INT32_MAX / 3) fail("faces", "has more than 2^31 / 3 rows");
    }

    // Pixels are addressed by int.
    void check_sides(char const* name, int64_t height, int64_t width) const {
        if (height > INT32_MAX || width > INT32_MAX) fail(name, "has a side beyond 2^31 - 1 pixels");
    }

    [[noreturn]] void fail(char const* name, std::string const& what) const {
        throw py::value_error("focus." + op_ + ": " + name + " " + what);
    }

  private:
    [[noreturn]] void fail_type(char const* name, std::string const& what) const {
        throw py::type_error("focus." + op_ + ": " + name + " " + what);
    }

    dlpack::Tensor const& unpack(char const* name, py::handle object) const {
        if (!PyCapsule_IsValid(object.ptr(), "dltensor")) {
            fail_type(name, "expected a DLPack capsule named \"dltensor\", got " + std::string(py::str(py::type::handle_of(object))));
        }
        auto* managed = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(object.ptr(), "dltensor"));
        dlpack::Tensor const& tensor = managed->tensor;
        constexpr int kLargestRank = 64;  // torch's own limit
        if (tensor.rank < 0 || tensor.rank > kLargestRank || (tensor.rank > 0 && !tensor.shape)) {
            fail(name, "is a damaged DLPack tensor");
        }
        return tensor;
    }

    void bind_device(char const* name, dlpack::Device device) {
        if (device.type != dlpack::kCpu && device.type != dlpack::kCuda) {
            fail(name, "lies on DLPack device type " + std::to_string(device.type) + "; expected CPU (1) or CUDA (2)");
        }
        bool const cuda = device.type == dlpack::kCuda;
        int const index = cuda ? device.index : 0;
        if (!bound_) {
            target_.cuda = cuda;
            target_.device_index = index;
            bound_ = true;
        } else if (target_.cuda != cuda || target_.device_index != index) {
            fail(name, std::string("lies on another device (") + (cuda ? "CUDA " + std::to_string(index) : "CPU") +
                           ") than the arguments before it");
        }
    }

    static std::string type_text(uint8_t code, int bits) {
        char const* kind = code == dlpack::kFloat ? "float" : code == dlpack::kInt ? "int" : code == dlpack::kUInt ? "uint" : "type";
        return kind + std::to_string(bits);
    }

    std::string op_;
    Target target_;
    bool bound_ = false;
    std::unique_ptr<double[]> sums_;
};

// The scratch of gradients that are added up over the pixels of each face, `sums` numbers at a time.
template <typename T>
FaceScratch view_face_scratch(Arguments& arguments, py::handle boxes, py::handle pieces, py::handle piece_sums, int64_t batch,
                              int64_t face_count, int64_t sums) {
    FaceScratch scratch;
    int64_t const faces = batch * face_count;
    if (faces > INT32_MAX) arguments.fail("faces", "times the images are more than 2^31 - 1");  // as the list of those shown counts them
    auto const memory = arguments.scratch<T, int32_t, 1>("boxes", boxes, {5 * faces + 1});      // boxes, then the list of those shown
    if (memory) {
        scratch.boxes = {memory.data, {batch, face_count, 4}};
        scratch.shown = {memory.data + 4 * faces, {1 + faces}};
    }
    scratch.pieces = arguments.scratch<T, int64_t, 1>("pieces", pieces, {kPieceListSize});
    scratch.piece_sums = arguments.scratch<T, double, 2>("piece_sums", piece_sums, {kPieceCapacity, sums});
    return scratch;
}

// The mesh arguments that several ops share.
struct Mesh {
    TensorView<int32_t const, 2> faces;
    TensorView<int32_t const, 1> offsets, corners;
};

inline TensorView<int32_t const, 2> view_faces(Arguments& arguments, py::handle faces, int64_t vertex_count) {
    auto const view = arguments.view<int32_t const, 2>("faces", faces, {kAny, 3});
    arguments.check_face_count(view.size[0]);
    arguments.check_range("faces", view, 0, vertex_count - 1);
    return view;
}

inline Mesh view_mesh(Arguments& arguments, py::handle faces, py::handle offsets, py::handle corners, int64_t vertex_count) {
    Mesh mesh;
    mesh.faces = view_faces(arguments, faces, vertex_count);
    int64_t const corner_count = 3 * mesh.faces.size[0];
    mesh.offsets = arguments.view<int32_t const, 1>("offsets", offsets, {vertex_count + 1});
    mesh.corners = arguments.view<int32_t const, 1>("corners", corners, {corner_count});
    arguments.check_range("offsets", mesh.offsets, 0, corner_count);
    arguments.check_range("corners", mesh.corners, 0, corner_count - 1);
    return mesh;
}

}  // namespace focus::bindings
