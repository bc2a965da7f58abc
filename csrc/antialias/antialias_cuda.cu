#include "antialias/antialias_math.h"
#include "common/face_boxes.h"
#include "common/launch.h"

namespace focus {

namespace {

// One thread per pair.
__global__ void __launch_bounds__(kBlockSize) find_edges_kernel(AntialiasParameters<float> p) {
    int64_t const height = p.edges.size[1], width = p.edges.size[3];
    FOCUS_GRID_STRIDE_LOOP(pair, p.edges.count()) {
        int64_t const line = quotient(pair, width), row = line / 2, b = quotient(row, height);
        p.edges.data[pair] =
            find_edge(p, b, static_cast<int>(pair - line * width), static_cast<int>(row - b * height), static_cast<int>(line % 2));
    }
}

// One thread per pixel.
__global__ void __launch_bounds__(kBlockSize) antialias_kernel(AntialiasParameters<float> p) {
    int64_t const area = p.face_index.stride(), width = p.face_index.size[2];
    FOCUS_GRID_STRIDE_LOOP(pixel, p.face_index.count()) {
        int64_t const b = quotient(pixel, area), i = pixel - b * area, y = quotient(i, width);
        antialias_pixel(p, b, static_cast<int>(i - y * width), static_cast<int>(y));
    }
}

// One thread per pixel.
__global__ void __launch_bounds__(kBlockSize) antialias_image_gradient_kernel(AntialiasBackwardParameters<float> p) {
    int64_t const width = p.edges.size[3], area = p.edges.size[1] * width;
    FOCUS_GRID_STRIDE_LOOP(pixel, p.edges.size[0] * area) {
        int64_t const b = quotient(pixel, area), i = pixel - b * area, y = quotient(i, width);
        antialias_image_gradient(p, b, static_cast<int>(i - y * width), static_cast<int>(y));
    }
}

// One thread per pixel.
__global__ void __launch_bounds__(kBlockSize) antialias_tangent_kernel(AntialiasTangentParameters<float> p) {
    int64_t const width = p.edges.size[3], area = p.edges.size[1] * width;
    FOCUS_GRID_STRIDE_LOOP(pixel, p.edges.size[0] * area) {
        int64_t const b = quotient(pixel, area), i = pixel - b * area, y = quotient(i, width);
        antialias_pixel_tangent(p, b, static_cast<int>(i - y * width), static_cast<int>(y));
    }
}

// The pairs as an image of twice the height: row 2 y + axis. A face owns the pairs that its edges blend.
TensorView<int32_t const, 3> image_of_pairs(TensorView<int32_t const, 4> const& edges) {
    return {edges.data, {edges.size[0], 2 * edges.size[1], edges.size[3]}};
}

// The gradients at a face's three corners, added up over its pairs. An item is a face of an image.
struct AddSilhouetteGradients {
    static constexpr int kSums = 6;
    struct State {
        PixelBox box;
        int64_t image;
        int32_t face;
    };

    AntialiasBackwardParameters<float> p;

    FOCUS_HD bool prepare(int64_t item, State* state) const {
        state->box = p.scratch.box(item);
        state->image = quotient(item, p.faces.size[0]);
        state->face = static_cast<int32_t>(item - state->image * p.faces.size[0]);
        return state->box.count() > 0;
    }

    FOCUS_HD void visit(State const& state, int x, int row, double* sums) const {
        int32_t const edge = p.edges.data[state.image * p.edges.stride() + row * p.edges.size[3] + x];
        if (edge >= 0 && edge / 3 == state.face) add_crossing_gradient(p, state.image, edge, x, row / 2, row % 2, sums);
    }

    FOCUS_HD void store(int64_t item, int k, double sum) const { p.grad_corners.data[6 * item + k] = static_cast<float>(sum); }
};

// One thread per vertex and image adds the corners in the order of the topology.
__global__ void __launch_bounds__(kBlockSize) gather_silhouette_kernel(AntialiasBackwardParameters<float> p) {
    int64_t const vertex_count = p.screen_vertices.size[1], face_count = p.faces.size[0];
    FOCUS_GRID_STRIDE_LOOP(i, p.screen_vertices.size[0] * vertex_count) {
        int64_t const b = quotient(i, vertex_count), v = i - b * vertex_count;
        double x = 0.0, y = 0.0;
        for (int32_t j = p.offsets.data[v]; j < p.offsets.data[v + 1]; ++j) {
            int32_t const corner = p.corners.data[j];
            if (!p.scratch.is_shown(b * face_count + corner / 3)) continue;  // nothing was stored
            x += p.grad_corners.data[2 * (b * 3 * face_count + corner)];
            y += p.grad_corners.data[2 * (b * 3 * face_count + corner) + 1];
        }
        p.grad_screen_vertices.data[3 * i] = static_cast<float>(x);
        p.grad_screen_vertices.data[3 * i + 1] = static_cast<float>(y);
        p.grad_screen_vertices.data[3 * i + 2] = 0.0f;
    }
}

}  // namespace

void antialias_cuda(AntialiasParameters<float> const& p, Stream stream) {
    launch("antialias_edges", find_edges_kernel, grid_size(p.edges.count()), kBlockSize, stream, p);
    launch("antialias", antialias_kernel, grid_size(p.face_index.count()), kBlockSize, stream, p);
}

void antialias_backward_cuda(AntialiasBackwardParameters<float> const& p, Stream stream) {
    if (p.grad_image) {
        launch("antialias_image_gradient", antialias_image_gradient_kernel, grid_size(p.edges.count() / 2), kBlockSize, stream, p);
    }
    if (!p.grad_screen_vertices) return;
    PieceList const list = find_face_boxes(p.scratch, image_of_pairs(p.edges), stream, 3);
    visit_boxes("silhouette_gradient", AddSilhouetteGradients{p}, ShownItems(p.scratch, 1), list, stream);
    launch("silhouette_gather", gather_silhouette_kernel, grid_size(p.screen_vertices.size[0] * p.screen_vertices.size[1]), kBlockSize,
           stream, p);
}

void antialias_tangent_cuda(AntialiasTangentParameters<float> const& p, Stream stream) {
    launch("antialias_tangent", antialias_tangent_kernel, grid_size(p.edges.count() / 2), kBlockSize, stream, p);
}

}  // namespace focus
