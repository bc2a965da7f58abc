// The box of the pixels that show each face, found on the card from the face index alone: what the gathering gradients visit. Integer
// minima and maxima, so the order of the threads does not matter.
#pragma once

#include "common/pixel_boxes.h"

namespace focus {

static __global__ void reset_face_boxes_kernel(FaceScratch scratch, PieceList list) {
    FOCUS_GRID_STRIDE_LOOP(face, scratch.boxes.size[0] * scratch.boxes.size[1]) {
        int32_t* const box = scratch.boxes.data + 4 * face;
        box[0] = box[1] = INT32_MAX;
        box[2] = box[3] = -1;
        if (face > 0) continue;
        list.clear();
        scratch.shown.data[0] = 0;
    }
}

// Only the pixels at the rim of an index's pixels can move a box; the others issue no atomic.
static __global__ void mark_face_boxes_kernel(FaceScratch scratch, TensorView<int32_t const, 3> face_index, int per_face) {
    int64_t const height = face_index.size[1], width = face_index.size[2], faces = scratch.boxes.size[1];
    FOCUS_GRID_STRIDE_LOOP(pixel, face_index.count()) {
        int32_t const index = face_index.data[pixel], face = index / per_face;
        if (index < 0 || face >= faces) continue;
        int64_t const row = quotient(pixel, width), b = quotient(row, height);
        int const x = static_cast<int>(pixel - row * width), y = static_cast<int>(row - b * height);
        int32_t* const box = scratch.boxes.data + 4 * (b * faces + face);
        if ((x == 0 || face_index.data[pixel - 1] != index) && atomicMin(box + 0, x) == INT32_MAX) {  // the first of this face
            scratch.shown.data[1 + atomicAdd(scratch.shown.data, 1)] = static_cast<int32_t>(b * faces + face);
        }
        if (y == 0 || face_index.data[pixel - width] != index) atomicMin(box + 1, y);
        if (x == width - 1 || face_index.data[pixel + 1] != index) atomicMax(box + 2, x);
        if (y == height - 1 || face_index.data[pixel + width] != index) atomicMax(box + 3, y);
    }
}

// What is to be visited of the faces that are shown, on a detailed mesh a quarter of them: `per_face` items each.
struct ShownItems {
    int32_t const* shown;
    int64_t per_face, most;

    ShownItems(FaceScratch const& scratch, int64_t items_per_face)
        : shown(scratch.shown.data), per_face(items_per_face), most((scratch.shown.size[0] - 1) * items_per_face) {}

    __device__ int64_t count() const { return *shown * per_face; }
    __device__ int64_t at(int64_t i) const {
        int64_t const face = per_face == 1 ? i : quotient(i, per_face);
        return shown[1 + face] * per_face + (i - face * per_face);
    }
};

// Returns the list of pieces to visit the boxes with. The index may be one of corners, with 3 `per_face`.
inline PieceList find_face_boxes(FaceScratch const& scratch, TensorView<int32_t const, 3> const& face_index, Stream stream,
                                 int per_face = 1) {
    PieceList const list(scratch.pieces, scratch.piece_sums, face_index.stride());
    launch("reset_face_boxes", reset_face_boxes_kernel, grid_size(scratch.boxes.size[0] * scratch.boxes.size[1]), kBlockSize, stream,
           scratch, list);
    launch("mark_face_boxes", mark_face_boxes_kernel, grid_size(face_index.count()), kBlockSize, stream, scratch, face_index, per_face);
    return list;
}

}  // namespace focus
