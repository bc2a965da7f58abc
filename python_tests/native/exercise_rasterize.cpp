#include "exercise.h"
#include "rasterize/rasterize.h"

namespace focus::exercise {

namespace {

struct Image {
    Buffer<float> barycentric{kPixels * 3}, depth{kPixels};
    Buffer<int32_t> face_index{kPixels};
};

void forward(Mesh& mesh, bool perspective_correct, bool cuda, Image& image) {
    Buffer<int64_t> nearest(kPixels), pieces(kPieceListSize);
    RasterizeParameters<float> const p{mesh.vertices.input(kBatch, Mesh::kVertices, 3),
                                       mesh.faces.input(Mesh::kFaces, 3),
                                       Cull::kNone,
                                       perspective_correct,
                                       image.barycentric.view(kBatch, kHeight, kWidth, 3),
                                       image.depth.view(kBatch, kHeight, kWidth),
                                       image.face_index.view(kBatch, kHeight, kWidth),
                                       nearest.view(kBatch, kHeight, kWidth),
                                       pieces.view(kPieceListSize)};
    if (cuda) {
        rasterize_cuda(on_card(p), nullptr);
        wait_for_device();
    } else {
        rasterize_cpu(p, 2);
    }
}

void backward(Mesh& mesh, bool perspective_correct, bool cuda, Image& image, Buffer<float>& grad) {
    Buffer<float> grad_barycentric(random_floats(kPixels * 3, -1.0f, 1.0f, 3)), grad_depth(random_floats(kPixels, -0.1f, 0.1f, 4));
    Buffer<int32_t> boxes(kBatch * Mesh::kFaces * 4), shown(1 + kBatch * Mesh::kFaces);
    Buffer<int64_t> pieces(kPieceListSize);
    Buffer<double> piece_sums(kPieceCapacity * 9);
    Buffer<float> grad_corners(kBatch * Mesh::kFaces * 9);
    RasterizeBackwardParameters<float> const p{mesh.vertices.input(kBatch, Mesh::kVertices, 3),
                                               mesh.faces.input(Mesh::kFaces, 3),
                                               mesh.offsets.input(Mesh::kVertices + 1),
                                               mesh.corners.input(3 * Mesh::kFaces),
                                               perspective_correct,
                                               image.face_index.input(kBatch, kHeight, kWidth),
                                               grad_barycentric.input(kBatch, kHeight, kWidth, 3),
                                               grad_depth.input(kBatch, kHeight, kWidth),
                                               {boxes.view(kBatch, Mesh::kFaces, 4), pieces.view(kPieceListSize),
                                                piece_sums.view(kPieceCapacity, 9), shown.view(1 + kBatch * Mesh::kFaces)},
                                               grad_corners.view(kBatch, Mesh::kFaces, 3, 3),
                                               grad.view(kBatch, Mesh::kVertices, 3)};
    if (cuda) {
        rasterize_backward_cuda(on_card(p), nullptr);
        wait_for_device();
    } else {
        rasterize_backward_cpu(p, 2);
    }
}

void tangent(Mesh& mesh, bool perspective_correct, bool cuda, Image& image, Image& moved) {
    Buffer<float> vertices_tangent(random_floats(kBatch * Mesh::kVertices * 3, -1.0f, 1.0f, 5));
    RasterizeTangentParameters<float> const p{mesh.vertices.input(kBatch, Mesh::kVertices, 3),
                                              mesh.faces.input(Mesh::kFaces, 3),
                                              perspective_correct,
                                              image.face_index.input(kBatch, kHeight, kWidth),
                                              vertices_tangent.input(kBatch, Mesh::kVertices, 3),
                                              moved.barycentric.view(kBatch, kHeight, kWidth, 3),
                                              moved.depth.view(kBatch, kHeight, kWidth)};
    if (cuda) {
        rasterize_tangent_cuda(on_card(p), nullptr);
        wait_for_device();
    } else {
        rasterize_tangent_cpu(p, 2);
    }
}

void run() {
    Mesh mesh;
    for (bool const perspective_correct : {false, true}) {
        Image on_cpu, on_cuda;
        forward(mesh, perspective_correct, false, on_cpu);
        forward(mesh, perspective_correct, true, on_cuda);
        expect_same_bits(on_cuda.face_index, on_cpu.face_index, "face index");
        expect_same_bits(on_cuda.depth, on_cpu.depth, "depth");
        expect_same_bits(on_cuda.barycentric, on_cpu.barycentric, "barycentric");

        Image moved_cpu, moved_cuda;
        tangent(mesh, perspective_correct, false, on_cpu, moved_cpu);
        tangent(mesh, perspective_correct, true, on_cuda, moved_cuda);
        expect_same_bits(moved_cuda.barycentric, moved_cpu.barycentric, "tangent of the barycentrics");
        expect_same_bits(moved_cuda.depth, moved_cpu.depth, "tangent of the depth");

        int64_t const count = kBatch * Mesh::kVertices * 3;
        Buffer<float> grad_cpu(count), grad_cuda(count), grad_again(count);
        backward(mesh, perspective_correct, false, on_cpu, grad_cpu);
        // What a damaged index may hold; on the card these pixels are background.
        for (int64_t pixel = 0, damaged = 0; damaged < 3; ++pixel) {
            if (on_cuda.face_index[pixel] < 0) on_cuda.face_index[pixel] = damaged++ == 0 ? Mesh::kFaces : damaged == 1 ? INT32_MAX : -7;
        }
        tangent(mesh, perspective_correct, true, on_cuda, moved_cuda);
        backward(mesh, perspective_correct, true, on_cuda, grad_cuda);
        backward(mesh, perspective_correct, true, on_cuda, grad_again);
        expect_close(grad_cuda, grad_cpu, "gradient");
        expect_same_bits(grad_cuda, grad_again, "gradient, again");
    }
}

Exercise const exercise("rasterize", run);

}  // namespace

}  // namespace focus::exercise
