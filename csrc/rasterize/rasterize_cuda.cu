#include "common/face_boxes.h"
#include "rasterize/nearest_face.h"

namespace focus {

namespace {

// One thread per pixel: barycentrics and depth of the face that was found.
__global__ void __launch_bounds__(kBlockSize) resolve_kernel(RasterizeParameters<float> p, unsigned long long const* nearest) {
    int64_t const height = p.depth.size[1], width = p.depth.size[2];
    FOCUS_GRID_STRIDE_LOOP(pixel, p.depth.count()) {
        int64_t const row = quotient(pixel, width), b = quotient(row, height);
        Coverage coverage{};
        int32_t const face = resolve(p, nearest[pixel], b, static_cast<int>(pixel - row * width), static_cast<int>(row - b * height),
                                     static_cast<int>(height), static_cast<int>(width), &coverage);
        p.face_index.data[pixel] = face;
        p.depth.data[pixel] = static_cast<float>(coverage.depth);
        for (int k = 0; k < 3; ++k) p.barycentric.data[3 * pixel + k] = static_cast<float>(coverage.barycentric[k]);
    }
}

// The gradients of a face's three corners, added up over its pixels.
struct AddCornerGradients {
    static constexpr int kSums = 9;
    struct State {
        PixelBox box;
        float const* vertices;  // of the image
        int64_t first_pixel;    // of the image
        int32_t face;
    };

    RasterizeBackwardParameters<float> p;

    FOCUS_HD bool prepare(int64_t item, State* state) const {
        int64_t const b = quotient(item, p.faces.size[0]);
        state->box = p.scratch.box(item);
        state->vertices = p.screen_vertices.data + b * p.screen_vertices.stride();
        state->first_pixel = b * p.face_index.stride();
        state->face = static_cast<int32_t>(item - b * p.faces.size[0]);
        return state->box.count() > 0;
    }

    FOCUS_HD void visit(State const& state, int x, int y, double* sums) const {
        int64_t const pixel = state.first_pixel + y * p.face_index.size[2] + x;
        if (p.face_index.data[pixel] != state.face) return;
        add_rasterize_gradient(state.vertices, p.faces.data + int64_t(3) * state.face, x, y, p.perspective_correct,
                               p.grad_barycentric ? p.grad_barycentric.data + 3 * pixel : nullptr,
                               p.grad_depth ? p.grad_depth.data + pixel : nullptr, sums);
    }

    FOCUS_HD void store(int64_t item, int k, double sum) const { p.grad_corners.data[9 * item + k] = static_cast<float>(sum); }
};

// One thread per vertex and image adds its corners, in the order of the topology.
__global__ void __launch_bounds__(kBlockSize) gather_corners_kernel(RasterizeBackwardParameters<float> p) {
    int64_t const vertex_count = p.screen_vertices.size[1], face_count = p.faces.size[0];
    FOCUS_GRID_STRIDE_LOOP(i, p.screen_vertices.size[0] * vertex_count) {
        int64_t const b = quotient(i, vertex_count), v = i - b * vertex_count;
        Vector3<double> sum{0.0, 0.0, 0.0};
        for (int32_t j = p.offsets.data[v]; j < p.offsets.data[v + 1]; ++j) {
            int32_t const corner = p.corners.data[j];
            if (!p.scratch.is_shown(b * face_count + corner / 3)) continue;  // nothing was stored
            float const* const grad = p.grad_corners.data + 3 * (b * 3 * face_count + corner);
            sum = sum + Vector3<double>{grad[0], grad[1], grad[2]};
        }
        store3(p.grad_screen_vertices.data + 3 * i,
               Vector3<float>{static_cast<float>(sum.x), static_cast<float>(sum.y), static_cast<float>(sum.z)});
    }
}

// One thread per pixel.
__global__ void __launch_bounds__(kBlockSize) rasterize_tangent_kernel(RasterizeTangentParameters<float> p) {
    int64_t const height = p.face_index.size[1], width = p.face_index.size[2];
    FOCUS_GRID_STRIDE_LOOP(pixel, p.face_index.count()) {
        int64_t const row = quotient(pixel, width), b = quotient(row, height);
        rasterize_pixel_tangent(p, b, row - b * height, pixel - row * width);
    }
}

}  // namespace

void rasterize_cuda(RasterizeParameters<float> const& p, Stream stream) {
    int64_t const pixels = p.depth.count();
    if (pixels == 0) return;
    unsigned long long* const nearest = find_nearest("rasterize", p, p.depth.size[1], p.depth.size[2], stream);
    launch("rasterize_resolve", resolve_kernel, grid_size(pixels), kBlockSize, stream, p, nearest);
}

void rasterize_backward_cuda(RasterizeBackwardParameters<float> const& p, Stream stream) {
    PieceList const list = find_face_boxes(p.scratch, p.face_index, stream);
    visit_boxes("rasterize_backward", AddCornerGradients{p}, ShownItems(p.scratch, 1), list, stream);
    launch("rasterize_gather", gather_corners_kernel, grid_size(p.screen_vertices.size[0] * p.screen_vertices.size[1]), kBlockSize, stream,
           p);
}

void rasterize_tangent_cuda(RasterizeTangentParameters<float> const& p, Stream stream) {
    launch("rasterize_tangent", rasterize_tangent_kernel, grid_size(p.face_index.count()), kBlockSize, stream, p);
}

}  // namespace focus
