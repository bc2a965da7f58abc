#include <algorithm>
#include <memory>
#include <numeric>

#include "common/parallel.h"
#include "common/simd.h"
#include "vertex_normals/vertex_normals_math.h"

namespace focus {

namespace {

// Calls body(image, first vertex, end of the vertices) for parts of every image: as few as keep the threads busy, since each part walks
// all faces. A face adds to its vertices in the order of the faces, which is that of the topology, however many parts there are.
template <typename Body>
void for_vertex_ranges(int64_t batch, int64_t vertex_count, int threads, Body const& body) {
    if (batch == 0 || vertex_count == 0) return;
    int64_t parts = batch >= 4 * threads ? 1 : threads / std::gcd(batch, int64_t(threads));
    parts = std::min(parts, chunk_count(vertex_count));
    parallel_for(batch * parts, threads, [&](int64_t task) {
        int64_t const part = task % parts;
        body(task / parts, vertex_count * part / parts, vertex_count * (part + 1) / parts);
    });
}

template <typename T>
std::unique_ptr<T[]> padded_memory(int64_t count) {
    return std::unique_ptr<T[]>(new T[4 * count]);
}

template <typename T>
FOCUS_INLINE inline void pad(T const* vectors, int64_t count, T* padded) {
    for (int64_t i = 0; i < count; ++i) {
        Padded<T> const vector = {vectors[3 * i], vectors[3 * i + 1], vectors[3 * i + 2], T(0)};
        store_padded(padded + 4 * i, vector);
    }
}

// Vertices [first, first + count) of an image, and for each a sum over its faces, padded.
template <typename T>
struct VertexSums {
    VertexSums(int64_t first_vertex, int64_t vertices) : first(first_vertex), count(vertices), sums(padded_memory<T>(vertices)) {
        std::fill_n(sums.get(), 4 * count, T(0));
    }

    FOCUS_INLINE bool holds(int32_t vertex) const { return static_cast<uint64_t>(vertex - first) < static_cast<uint64_t>(count); }
    FOCUS_INLINE void add(int32_t vertex, Padded<T> value) const {
        if (!holds(vertex)) return;
        T* const sum = sums.get() + 4 * (vertex - first);
        store_padded(sum, load_padded(sum) + value);
    }

    int64_t first, count;
    std::unique_ptr<T[]> sums;
};

// Calls visit(face, a, b, c, normal) for every face with a vertex in the range and a finite normal.
template <typename T, typename Visit>
FOCUS_INLINE inline void for_faces(TensorView<int32_t const, 2> faces, T const* padded_vertices, VertexSums<T> const& range,
                                   Visit const& visit) {
    for (int32_t const *face = faces.data, *end = face + faces.count(); face != end; face += 3) {
        if (!(range.holds(face[0]) | range.holds(face[1]) | range.holds(face[2]))) continue;
        Padded<T> const a = load_padded(padded_vertices + int64_t(4) * face[0]), b = load_padded(padded_vertices + int64_t(4) * face[1]),
                        c = load_padded(padded_vertices + int64_t(4) * face[2]), normal = normal_of(a, b, c);
        if (is_finite_padded<T>(normal)) visit(face, a, b, c, normal);
    }
}

template <typename T>
FOCUS_INLINE inline void add_normals(TensorView<int32_t const, 2> faces, T const* padded_vertices, VertexSums<T> const& sums) {
    for_faces(faces, padded_vertices, sums, [&](int32_t const* face, Padded<T>, Padded<T>, Padded<T>, Padded<T> normal) FOCUS_INLINE {
        for (int corner = 0; corner < 3; ++corner) sums.add(face[corner], normal);
    });
}

}  // namespace

template <typename T>
void vertex_normals_cpu(VertexNormalsParameters<T> const& p, int threads) {
    int64_t const vertex_count = p.vertices.size[1];
    for_vertex_ranges(p.vertices.size[0], vertex_count, threads, [&](int64_t image, int64_t first, int64_t end) {
        auto const vertices = padded_memory<T>(vertex_count);
        VertexSums<T> const sums(first, end - first);
        T* const normals = p.normals.data + 3 * (image * vertex_count + first);
        vectorized([&]() FOCUS_INLINE {
            pad(p.vertices.data + image * vertex_count * 3, vertex_count, vertices.get());
            add_normals(p.faces, vertices.get(), sums);
            for (int64_t v = 0; v < sums.count; v += LanesOf<T>::kCount) {
                Lanes<T> inverse_length;
                Vector3<Lanes<T>> const sum = load3_lanes(sums.sums.get() + 4 * v, 4, sums.count - v);
                store3_lanes(normals + 3 * v, 3, sums.count - v, normalized(sum, &inverse_length));
            }
        });
    });
}

template <typename T>
void vertex_normals_backward_cpu(VertexNormalsBackwardParameters<T> const& p, int threads) {
    int64_t const vertex_count = p.vertices.size[1];
    for_vertex_ranges(p.vertices.size[0], vertex_count, threads, [&](int64_t image, int64_t first, int64_t end) {
        auto const vertices = padded_memory<T>(vertex_count);
        VertexSums<T> const sums(first, end - first);
        int64_t const out = 3 * (image * vertex_count + first);
        vectorized([&]() FOCUS_INLINE {
            pad(p.vertices.data + image * vertex_count * 3, vertex_count, vertices.get());
            add_normals(p.faces, vertices.get(), sums);
            for (int64_t v = 0; v < sums.count; v += LanesOf<T>::kCount) {
                int64_t const rest = sums.count - v;
                store3_lanes(p.grad_sums.data + out + 3 * v, 3, rest,
                             normal_sum_gradient(load3_lanes(sums.sums.get() + 4 * v, 4, rest),
                                                 load3_lanes(p.grad_normals.data + out + 3 * v, 3, rest)));
            }
        });
    });
    for_vertex_ranges(p.vertices.size[0], vertex_count, threads, [&](int64_t image, int64_t first, int64_t end) {
        auto const vertices = padded_memory<T>(vertex_count), grad_sums = padded_memory<T>(vertex_count);
        VertexSums<T> const sums(first, end - first);
        vectorized([&]() FOCUS_INLINE {
            pad(p.vertices.data + image * vertex_count * 3, vertex_count, vertices.get());
            pad(p.grad_sums.data + image * vertex_count * 3, vertex_count, grad_sums.get());
            for_faces(
                p.faces, vertices.get(), sums, [&](int32_t const* face, Padded<T> a, Padded<T> b, Padded<T> c, Padded<T>) FOCUS_INLINE {
                    auto const grad_of = [&](int corner) FOCUS_INLINE { return load_padded(grad_sums.get() + int64_t(4) * face[corner]); };
                    Padded<T> const g = grad_of(0) + grad_of(1) + grad_of(2);
                    sums.add(face[0], corner_gradient_of(b, c, g));
                    sums.add(face[1], corner_gradient_of(c, a, g));
                    sums.add(face[2], corner_gradient_of(a, b, g));
                });
            T* const out = p.grad_vertices.data + 3 * (image * vertex_count + first);
            for (int64_t v = 0; v < sums.count; ++v) store3(out + 3 * v, load3(sums.sums.get() + 4 * v));
        });
    });
}

template <typename T>
void vertex_normals_tangent_cpu(VertexNormalsTangentParameters<T> const& p, int threads) {
    int64_t const vertex_count = p.vertices.size[1], chunks = chunk_count(vertex_count);
    parallel_for(p.vertices.size[0] * chunks, threads, [&](int64_t task) {
        int64_t const begin = task % chunks * kChunk, end = std::min(begin + kChunk, vertex_count);
        for (int64_t v = begin; v < end; ++v) vertex_normal_tangent(p, task / chunks, v);
    });
}

template void vertex_normals_cpu(VertexNormalsParameters<float> const&, int);
template void vertex_normals_cpu(VertexNormalsParameters<double> const&, int);
template void vertex_normals_backward_cpu(VertexNormalsBackwardParameters<float> const&, int);
template void vertex_normals_backward_cpu(VertexNormalsBackwardParameters<double> const&, int);
template void vertex_normals_tangent_cpu(VertexNormalsTangentParameters<float> const&, int);
template void vertex_normals_tangent_cpu(VertexNormalsTangentParameters<double> const&, int);

}  // namespace focus
