#include "common/parallel.h"
#include "vertex_normals/vertex_normals_math.h"

namespace focus {

template <typename T>
void vertex_normals_cpu(VertexNormalsParameters<T> const& p, int threads) {
    int64_t const vertex_count = p.vertices.size[1];
    parallel_for_chunks(p.vertices.size[0] * vertex_count, threads, [&](int64_t begin, int64_t end, int64_t) {
        for (int64_t i = begin; i < end; ++i) {
            int64_t const v = i % vertex_count;
            T const* const vertices = p.vertices.data + (i - v) * 3;
            T inverse_length;
            store3(
                p.normals.data + 3 * i,
                normalized(normal_sum(vertices, p.faces.data, p.corners.data, p.offsets.data[v], p.offsets.data[v + 1]), &inverse_length));
        }
    });
}

template <typename T>
void vertex_normals_backward_cpu(VertexNormalsBackwardParameters<T> const& p, int threads) {
    int64_t const vertex_count = p.vertices.size[1], count = p.vertices.size[0] * vertex_count;
    parallel_for_chunks(count, threads, [&](int64_t begin, int64_t end, int64_t) {
        for (int64_t i = begin; i < end; ++i) {
            int64_t const v = i % vertex_count;
            Vector3<T> const sum =
                normal_sum(p.vertices.data + (i - v) * 3, p.faces.data, p.corners.data, p.offsets.data[v], p.offsets.data[v + 1]);
            store3(p.grad_sums.data + 3 * i, normal_sum_gradient(sum, load3(p.grad_normals.data + 3 * i)));
        }
    });
    parallel_for_chunks(count, threads, [&](int64_t begin, int64_t end, int64_t) {
        for (int64_t i = begin; i < end; ++i) {
            int64_t const v = i % vertex_count, item = (i - v) * 3;
            store3(p.grad_vertices.data + 3 * i, vertex_gradient(p.vertices.data + item, p.grad_sums.data + item, p.faces.data,
                                                                 p.corners.data, p.offsets.data[v], p.offsets.data[v + 1]));
        }
    });
}

template void vertex_normals_cpu(VertexNormalsParameters<float> const&, int);
template void vertex_normals_cpu(VertexNormalsParameters<double> const&, int);
template void vertex_normals_backward_cpu(VertexNormalsBackwardParameters<float> const&, int);
template void vertex_normals_backward_cpu(VertexNormalsBackwardParameters<double> const&, int);

}  // namespace focus
