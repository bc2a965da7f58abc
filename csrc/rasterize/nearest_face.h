// The nearest face of every pixel, found on the card.
#pragma once

#include "common/pixel_boxes.h"
#include "rasterize/rasterize_math.h"

namespace focus {

static __global__ void clear_nearest_kernel(unsigned long long* nearest, int64_t pixels, PieceList list) {
    FOCUS_GRID_STRIDE_LOOP(pixel, pixels) {
        nearest[pixel] = kNoFace;
        if (pixel == 0) list.clear();
    }
}

// The minimum of (depth, face) does not depend on the order in which the faces come.
template <bool kPerspectiveCorrect>
struct FindNearest {
    static constexpr int kSums = 0;
    struct State : Triangle {
        int64_t first_pixel;  // of the image
        int32_t face;
    };

    TensorView<float const, 3> screen_vertices;
    TensorView<int32_t const, 2> faces;
    Cull cull;
    int height, width;
    unsigned long long* nearest;  // [B, H, W]

    FOCUS_HD bool prepare(int64_t item, State* state) const {
        int64_t const b = quotient(item, faces.size[0]);
        state->face = static_cast<int32_t>(item - b * faces.size[0]);
        state->first_pixel = b * height * width;
        return make_triangle(screen_vertices.data + b * screen_vertices.stride(), faces.data + int64_t(3) * state->face, cull, height,
                             width, state);
    }

    __device__ void visit(State const& state, int x, int y, double*) const {
        Coverage coverage;
        if (!cover(state, x, y, kPerspectiveCorrect, &coverage)) return;
        atomicMin(nearest + state.first_pixel + int64_t(y) * width + x, nearest_key(static_cast<float>(coverage.depth), state.face));
    }
};

// Returns the keys of the pixels, which are more than none. `Parameters` are those of rasterize or render.
template <typename Parameters>
unsigned long long* find_nearest(char const* name, Parameters const& p, int64_t height, int64_t width, Stream stream) {
    auto* const nearest = reinterpret_cast<unsigned long long*>(p.nearest.data);
    int64_t const pixels = p.nearest.count();
    PieceList const list(p.pieces, {}, height * width);
    launch("clear_nearest", clear_nearest_kernel, grid_size(pixels), kBlockSize, stream, nearest, pixels, list);
    AllItems const all{p.screen_vertices.size[0] * p.faces.size[0]};
    auto const visit = [&](auto perspective_correct) {
        FindNearest<perspective_correct()> const work{p.screen_vertices,       p.faces, p.cull, static_cast<int>(height),
                                                      static_cast<int>(width), nearest};
        visit_boxes(name, work, all, list, stream);
    };
    if (p.perspective_correct) {
        visit(std::true_type{});
    } else {
        visit(std::false_type{});
    }
    return nearest;
}

// The face of a key and where in it the pixel lies; -1 in the background.
template <typename Parameters>
__device__ inline int32_t resolve(Parameters const& p, unsigned long long key, int64_t b, int x, int y, int height, int width,
                                  Coverage* coverage) {
    if (key == kNoFace) return -1;
    int32_t const face = static_cast<int32_t>(key & 0xffffffffu);
    Triangle triangle;
    make_triangle(p.screen_vertices.data + b * p.screen_vertices.stride(), p.faces.data + int64_t(3) * face, p.cull, height, width,
                  &triangle);
    cover(triangle, x, y, p.perspective_correct, coverage);
    return face;
}

}  // namespace focus
