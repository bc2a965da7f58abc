// Coverage-guided fuzzing of the functions of focus._C: made-up DLPack capsules, most of them right, some wrong in one way or another. See
// docs/architecture.md for how to run it. A call may succeed or raise ValueError, TypeError or RuntimeError; the sanitizers see the rest.
//
// FOCUS_FUZZ_FUNCTION names the function. Memory is as large as its capsule says, and not a byte larger.
#include <fuzzer/FuzzedDataProvider.h>
#include <pybind11/embed.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "bindings/dlpack.h"
#include "common/color_difference.h"
#include "neighbor_min/neighbor_min.h"
#include "sh_shading/sh_shading.h"

extern "C" PyObject* PyInit_fuzz_borders();

namespace {

namespace py = pybind11;
namespace dlpack = focus::dlpack;

// One argument each, apart by commas. Tensors: their letter, then their sizes. T: floats of the call; D: float64; U: uint8; int32 in a
// range: F vertex indices, G faces and -1, O offsets, C corners, E corners and -1. Lower case: the same, and may be None. Others: N None, b
// bool, w window, p power, k cull, s scale, v vertex count; "." is the pair of thread count and stream.
std::map<std::string, char const*> const kSignatures = {
    {"build_topology", "F F 3,v,O V1,C F3"},
    {"rasterize", "T B V 3,F F 3,k,b,T B H W 3,T B H W,G B H W,N,N,."},
    {"rasterize_backward", "T B V 3,F F 3,O V1,C F3,b,G B H W,t B H W 3,t B H W,N,N,N,N,T B V 3,."},
    {"rasterize_tangent", "T B V 3,F F 3,b,G B H W,T B V 3,T B H W 3,T B H W,."},
    {"interpolate", "T A V C,F F 3,G B H W,T B H W 3,T B C H W,."},
    {"interpolate_backward", "T A V C,F F 3,O V1,C F3,G B H W,T B H W 3,T B C H W,N,N,N,N,t A V C,t B H W 3,."},
    {"render", "T B V 3,T A V C,F F 3,k,b,T B C H W,T B 1 H W,G B H W,N,N,."},
    {"render_backward", "T B V 3,T A V C,F F 3,O V1,C F3,b,G B H W,T B C H W,N,N,N,N,t B V 3,t A V C,."},
    {"render_tangent", "T B V 3,T A V C,F F 3,b,G B H W,t B V 3,t A V C,T B C H W,."},
    {"find_seams", "F F 3,C F3,E F3 3"},
    {"antialias", "T B C H W,T B V 3,F F 3,C F3,G B H W,e S 3,T B C H W,E B H 2 W,."},
    {"antialias_backward", "T B C H W,T B V 3,F F 3,O V1,C F3,E B H 2 W,T B C H W,N,N,N,N,t B C H W,t B V 3,."},
    {"antialias_tangent", "T B C H W,T B V 3,F F 3,E B H 2 W,t B C H W,t B V 3,T B C H W,."},
    {"vertex_normals", "T B V 3,F F 3,O V1,C F3,T B V 3,."},
    {"vertex_normals_backward", "T B V 3,F F 3,O V1,C F3,T B V 3,T B V 3,T B V 3,."},
    {"vertex_normals_tangent", "T B V 3,F F 3,O V1,C F3,T B V 3,T B V 3,."},
    {"sh_shading", "T B V 3,T B V 3,T B 3 9,T B V 3,."},
    {"sh_shading_backward", "T B V 3,T B V 3,T B 3 9,T B V 3,t B V 3,t B V 3,T B S 3 9,t B 3 9,."},
    {"sh_shading_tangent", "T B V 3,T B V 3,T B 3 9,t B V 3,t B V 3,t B 3 9,T B V 3,."},
    {"neighbor_min", "T B C H W,T B C H W,t B 1 H W,w,p,b,U B H W,t B H W,t 1,D B TY TX,."},
    {"neighbor_min_backward", "T B C H W,T B C H W,t B 1 H W,w,p,b,U B H W,t B H W,t 1,t B C H W,t B C H W,t B 1 H W,."},
    {"masked_photometric", "T B C H W,T B C H W,T B 1 H W,T 1,T 2,D 2 B P,."},
    {"masked_photometric_backward", "T B C H W,T B C H W,T B 1 H W,T 2,T 1,t B C H W,t B C H W,t B 1 H W,."},
    {"outlier_robust", "T B C H W,T B C H W,T B 1 H W,s,s,T 1,T B 1 H W,D B P,."},
    {"outlier_robust_backward", "T B C H W,T B C H W,T B 1 H W,s,s,T 1,t B C H W,t B C H W,t B 1 H W,."},
};

struct Capsule {
    dlpack::ManagedTensor managed{};
    std::vector<int64_t> shape, strides;
    std::unique_ptr<char[]> memory;
};

class Call {
  public:
    explicit Call(FuzzedDataProvider& data) : data_(data) {
        // The batch of 1 and 2, and sizes round the limits of vector code, chunks and tiles, come often enough; 0 does too.
        sizes_ = {{"B", small(3)}, {"V", small(9)}, {"F", small(9)}, {"C", small(5)}, {"H", small(12)}, {"W", side()}};
        sizes_["A"] = data_.ConsumeBool() ? 1 : sizes_["B"];
        sizes_["V1"] = sizes_["V"] + 1;
        sizes_["F3"] = 3 * sizes_["F"];
        sizes_["P"] = parts(sizes_["H"] * sizes_["W"], focus::kPixelChunk);
        sizes_["S"] = parts(sizes_["V"], focus::kShChunk);
        sizes_["TY"] = parts(sizes_["H"], focus::kNeighborTileHeight);
        sizes_["TX"] = parts(sizes_["W"], focus::kNeighborTileWidth);
        is_double_ = data_.ConsumeIntegralInRange(0, 3) == 0;
        mutations_ = data_.ConsumeIntegralInRange(0, 3) == 0 ? data_.ConsumeIntegralInRange(1, 3) : 0;
    }

    py::tuple arguments(char const* signature) {
        std::vector<py::object> list;
        std::istringstream stream(signature);
        for (std::string text; std::getline(stream, text, ',');) {
            if (text == ".") {
                list.push_back(py::int_(data_.PickValueInArray({1, 1, 1, 2, 3, 0, -7, INT32_MAX})));
                list.push_back(py::int_(0));
            } else {
                list.push_back(argument(text));
            }
        }
        for (; mutations_ > 0; --mutations_) {  // whole arguments
            if (data_.ConsumeIntegralInRange(0, 3) || list.empty()) continue;
            list[data_.ConsumeIntegralInRange<size_t>(0, list.size() - 1)] = wrong_object();
        }
        py::tuple result(list.size());
        for (size_t i = 0; i < list.size(); ++i) result[i] = list[i];
        return result;
    }

  private:
    int64_t small(int most) { return data_.ConsumeIntegralInRange(0, 9) ? data_.ConsumeIntegralInRange(1, most) : 0; }
    int64_t side() { return data_.ConsumeIntegralInRange(0, 15) ? small(40) : data_.ConsumeIntegralInRange(1000, 1100); }
    static int64_t parts(int64_t count, int64_t size) { return (count + size - 1) / size; }

    py::object wrong_object() {
        switch (data_.ConsumeIntegralInRange(0, 7)) {
            case 0:
                return py::none();
            case 1:
                return py::int_(data_.ConsumeIntegral<int64_t>());
            case 2:
                return py::float_(data_.ConsumeFloatingPoint<double>());
            case 3:
                return py::str("text");
            case 4:
                return py::list();
            case 5:
                return py::int_(0) - (py::int_(1) << py::int_(200));
            case 6:
                return py::reinterpret_steal<py::object>(PyCapsule_New(this, "used_dltensor", nullptr));
            default:
                return py::reinterpret_steal<py::object>(PyCapsule_New(this, nullptr, nullptr));
        }
    }

    py::object argument(std::string const& text) {
        std::istringstream stream(text);
        char kind;
        stream >> kind;
        switch (kind) {
            case 'N':
                return py::none();
            case 'b':
                return py::bool_(data_.ConsumeBool());
            case 'v':
                return py::int_(data_.ConsumeIntegralInRange(0, 15) ? sizes_["V"] : data_.ConsumeIntegral<int64_t>());
            case 'w':
                return py::int_(data_.PickValueInArray({1, 3, 5, 15, 3, 7, 0, 2, 17, -3, INT32_MAX}));
            case 'p':
                return py::int_(data_.PickValueInArray({1, 2, 1, 2, 0, 3}));
            case 'k':
                return py::int_(data_.PickValueInArray({0, 1, 2, 0, 1, 2, 3, -1}));
            case 's':
                return py::float_(data_.ConsumeBool() ? 0.1 : data_.ConsumeFloatingPoint<double>());
            default:
                break;
        }
        if (kind == 't' && data_.ConsumeBool()) return py::none();
        std::vector<int64_t> shape;
        for (std::string name; stream >> name;) shape.push_back(sizes_.count(name) ? sizes_[name] : std::stoll(name));
        return capsule(kind == 't' ? 'T' : kind, std::move(shape));
    }

    py::object capsule(char kind, std::vector<int64_t> shape) {
        capsules_.emplace_back();
        Capsule& made = capsules_.back();
        dlpack::Tensor& tensor = made.managed.tensor;
        tensor.device = {dlpack::kCpu, 0};
        tensor.type = kind == 'T'   ? dlpack::DataType{dlpack::kFloat, uint8_t(is_double_ ? 64 : 32), 1}
                      : kind == 'D' ? dlpack::DataType{dlpack::kFloat, 64, 1}
                      : kind == 'U' ? dlpack::DataType{dlpack::kUInt, 8, 1}
                                    : dlpack::DataType{dlpack::kInt, 32, 1};
        made.shape = std::move(shape);
        bool const wrong = mutations_ > 0 && data_.ConsumeIntegralInRange(0, 3) == 0;
        int const how = wrong ? data_.ConsumeIntegralInRange(0, 9) : -1;
        if (wrong) --mutations_;
        if (how == 0 && !made.shape.empty()) {
            made.shape[data_.ConsumeIntegralInRange<size_t>(0, made.shape.size() - 1)] = odd_number();
        } else if (how == 1) {
            made.shape.resize(data_.ConsumeIntegralInRange(0, 70), odd_number());
        } else if (how == 2) {
            tensor.type = {data_.ConsumeIntegral<uint8_t>(), data_.ConsumeIntegral<uint8_t>(), data_.ConsumeIntegral<uint16_t>()};
        }
        // Memory for what the capsule says, or none where that is not to be had.
        constexpr int64_t kMostBytes = 1 << 20;
        int64_t bytes = std::max(1, tensor.type.bits * tensor.type.lanes / 8);
        for (int64_t const size : made.shape) {
            if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes) || bytes > kMostBytes) bytes = kMostBytes + 1;
            if (size == 0) break;
        }
        size_t shift = how == 3 ? data_.ConsumeIntegralInRange(0, 16) : 0;
        if (bytes <= kMostBytes) {
            made.memory.reset(new char[bytes + shift]);
            fill(kind, made.memory.get() + shift, bytes);
            tensor.data = made.memory.get();
        }
        tensor.byte_offset = shift;
        tensor.rank = static_cast<int32_t>(made.shape.size());
        if (data_.ConsumeBool() || how == 4) {
            made.strides.resize(made.shape.size());
            int64_t stride = 1;
            for (size_t i = made.shape.size(); i-- > 0;) {
                made.strides[i] = stride;
                if (__builtin_mul_overflow(stride, made.shape[i], &stride)) stride = 0;
            }
            if (how == 4 && !made.strides.empty()) {
                made.strides[data_.ConsumeIntegralInRange<size_t>(0, made.strides.size() - 1)] = odd_number();
            }
        }
        tensor.shape = made.shape.data();
        tensor.strides = made.strides.empty() ? nullptr : made.strides.data();
        if (how == 5) tensor.rank = data_.PickValueInArray({-1, 65, INT32_MAX, INT32_MIN});
        if (how == 6) tensor.shape = nullptr;
        if (how == 7) tensor.data = nullptr;
        if (how == 8) tensor.device = {data_.ConsumeIntegralInRange(-1, 20), data_.ConsumeIntegralInRange(-2, 3)};
        return py::reinterpret_steal<py::object>(PyCapsule_New(&made.managed, how == 9 ? "dltensor_versioned" : "dltensor", nullptr));
    }

    int64_t odd_number() {
        static constexpr int64_t kOdd[] = {0, 1, 2, 3, 9, INT32_MAX, int64_t(1) << 32, int64_t(1) << 61, INT64_MAX, INT64_MIN + 1};
        return data_.PickValueInArray(kOdd) - (data_.ConsumeBool() ? 1 : 0);
    }

    template <typename T>
    void fill_floats(char* memory, int64_t bytes) {
        T const special[] = {T(0),
                             T(-1),
                             std::numeric_limits<T>::quiet_NaN(),
                             std::numeric_limits<T>::infinity(),
                             std::numeric_limits<T>::max(),
                             std::numeric_limits<T>::denorm_min(),
                             T(1e30),
                             T(-1e-30),
                             T(3.5),
                             T(2)};
        bool const ordinary = data_.ConsumeBool();
        uint32_t state = data_.ConsumeIntegral<uint16_t>();
        for (int64_t i = 0; i < bytes / int64_t(sizeof(T)); ++i) {
            state = state * 1664525u + 1013904223u;
            T const value = !ordinary && state >> 29 == 0 ? special[(state >> 16) % 10] : T(state >> 20) / T(256) - T(1);
            std::memcpy(memory + i * sizeof(T), &value, sizeof(T));
        }
    }

    void fill(char kind, char* memory, int64_t bytes) {
        if (kind == 'T' && is_double_) return fill_floats<double>(memory, bytes);
        if (kind == 'T') return fill_floats<float>(memory, bytes);
        if (kind == 'D') return fill_floats<double>(memory, bytes);
        uint32_t state = data_.ConsumeIntegral<uint16_t>();
        if (kind == 'U') {
            for (int64_t i = 0; i < bytes; ++i) memory[i] = static_cast<char>((state = state * 1664525u + 1013904223u) >> 24);
            return;
        }
        int64_t const low = kind == 'G' || kind == 'E' ? -1 : 0;
        int64_t const high = kind == 'F' ? sizes_["V"] : kind == 'G' ? sizes_["F"] : kind == 'O' ? sizes_["F3"] + 1 : sizes_["F3"];
        bool const wild = data_.ConsumeIntegralInRange(0, 31) == 0;
        for (int64_t i = 0; i < bytes / 4; ++i) {
            state = state * 1664525u + 1013904223u;
            int32_t const value = wild && state >> 29 == 0 ? static_cast<int32_t>(state * 2654435761u)
                                                           : static_cast<int32_t>(low + (state >> 8) % std::max<int64_t>(high - low, 1));
            std::memcpy(memory + 4 * i, &value, 4);
        }
    }

    FuzzedDataProvider& data_;
    std::map<std::string, int64_t> sizes_;
    std::deque<Capsule> capsules_;
    bool is_double_;
    int mutations_;
};

char const* function_name = nullptr;
py::object* function = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    function_name = std::getenv("FOCUS_FUZZ_FUNCTION");
    if (!function_name || !kSignatures.count(function_name)) {
        std::fprintf(stderr, "FOCUS_FUZZ_FUNCTION must name one of:");
        for (auto const& [name, signature] : kSignatures) std::fprintf(stderr, " %s", name.c_str());
        std::fprintf(stderr, "\n");
        std::exit(1);
    }
    PyImport_AppendInittab("fuzz_borders", PyInit_fuzz_borders);
    py::initialize_interpreter(false);
    function = new py::object(py::module_::import("fuzz_borders").attr(function_name));
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* bytes, size_t size) {
    FuzzedDataProvider data(bytes, size);
    Call call(data);
    try {
        py::tuple const arguments = call.arguments(kSignatures.at(function_name));
        (*function)(*arguments);
    } catch (py::error_already_set const& error) {
        if (!error.matches(PyExc_ValueError) && !error.matches(PyExc_TypeError) && !error.matches(PyExc_RuntimeError)) {
            std::fprintf(stderr, "%s\n", error.what());
            std::abort();
        }
    }
    return 0;
}
