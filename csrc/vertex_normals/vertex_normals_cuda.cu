#include "common/launch.h"
#include "vertex_normals/vertex_normals_math.h"

namespace focus {

namespace {

// One thread per vertex and image, here and below, walks the faces of the vertex in the order of the topology.
__global__ void __launch_bounds__(kBlockSize) vertex_normals_kernel(VertexNormalsParameters<float> p) {
    int64_t const vertex_count = p.vertices.size[1];
    FOCUS_GRID_STRIDE_LOOP(i, p.vertices.size[0] * vertex_count) {
        int64_t const b = quotient(i, vertex_count), v = i - b * vertex_count;
        float inverse_length;
        store3(p.normals.data + 3 * i, normalized(normal_sum(p.vertices.data + b * p.vertices.stride(), p.faces.data, p.corners.data,
                                                             p.offsets.data[v], p.offsets.data[v + 1]),
                                                  &inverse_length));
    }
}

__global__ void __launch_bounds__(kBlockSize) normal_sum_gradient_kernel(VertexNormalsBackwardParameters<float> p) {
    int64_t const vertex_count = p.vertices.size[1];
    FOCUS_GRID_STRIDE_LOOP(i, p.vertices.size[0] * vertex_count) {
        int64_t const b = quotient(i, vertex_count), v = i - b * vertex_count;
        Vector3<float> const sum =
            normal_sum(p.vertices.data + b * p.vertices.stride(), p.faces.data, p.corners.data, p.offsets.data[v], p.offsets.data[v + 1]);
        store3(p.grad_sums.data + 3 * i, normal_sum_gradient(sum, load3(p.grad_normals.data + 3 * i)));
    }
}

__global__ void __launch_bounds__(kBlockSize) vertex_gradient_kernel(VertexNormalsBackwardParameters<float> p) {
    int64_t const vertex_count = p.vertices.size[1];
    FOCUS_GRID_STRIDE_LOOP(i, p.vertices.size[0] * vertex_count) {
        int64_t const b = quotient(i, vertex_count), v = i - b * vertex_count, item = b * p.vertices.stride();
        store3(p.grad_vertices.data + 3 * i, vertex_gradient(p.vertices.data + item, p.grad_sums.data + item, p.faces.data, p.corners.data,
                                                             p.offsets.data[v], p.offsets.data[v + 1]));
    }
}

__global__ void __launch_bounds__(kBlockSize) vertex_normals_tangent_kernel(VertexNormalsTangentParameters<float> p) {
    int64_t const vertex_count = p.vertices.size[1];
    FOCUS_GRID_STRIDE_LOOP(i, p.vertices.size[0] * vertex_count) {
        int64_t const b = quotient(i, vertex_count);
        vertex_normal_tangent(p, b, i - b * vertex_count);
    }
}

}  // namespace

void vertex_normals_cuda(VertexNormalsParameters<float> const& p, Stream stream) {
    int64_t const count = p.vertices.size[0] * p.vertices.size[1];
    launch("vertex_normals", vertex_normals_kernel, grid_size(count), kBlockSize, stream, p);
}

void vertex_normals_backward_cuda(VertexNormalsBackwardParameters<float> const& p, Stream stream) {
    int64_t const count = p.vertices.size[0] * p.vertices.size[1];
    launch("normal_sum_gradient", normal_sum_gradient_kernel, grid_size(count), kBlockSize, stream, p);
    launch("vertex_gradient", vertex_gradient_kernel, grid_size(count), kBlockSize, stream, p);
}

void vertex_normals_tangent_cuda(VertexNormalsTangentParameters<float> const& p, Stream stream) {
    int64_t const count = p.vertices.size[0] * p.vertices.size[1];
    launch("vertex_normals_tangent", vertex_normals_tangent_kernel, grid_size(count), kBlockSize, stream, p);
}

}  // namespace focus
