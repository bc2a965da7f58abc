#include "exercise.h"
#include "vertex_normals/vertex_normals.h"

namespace focus::exercise {

namespace {

void run() {
    Mesh mesh;
    int64_t const count = kBatch * Mesh::kVertices * 3;
    Buffer<float> grad_normals(random_floats(count, -1.0f, 1.0f, 9));
    Buffer<float> normals_cpu(count), normals_cuda(count), sums(count), grad_cpu(count), grad_cuda(count);

    VertexNormalsParameters<float> p{mesh.vertices.input(kBatch, Mesh::kVertices, 3), mesh.faces.input(Mesh::kFaces, 3),
                                     mesh.offsets.input(Mesh::kVertices + 1), mesh.corners.input(3 * Mesh::kFaces),
                                     normals_cpu.view(kBatch, Mesh::kVertices, 3)};
    vertex_normals_cpu(p, 2);
    p.normals = normals_cuda.view(kBatch, Mesh::kVertices, 3);
    vertex_normals_cuda(on_card(p), nullptr);
    wait_for_device();
    expect_same_bits(normals_cuda, normals_cpu, "normals");

    VertexNormalsBackwardParameters<float> q{p.vertices,
                                             p.faces,
                                             p.offsets,
                                             p.corners,
                                             grad_normals.input(kBatch, Mesh::kVertices, 3),
                                             sums.view(kBatch, Mesh::kVertices, 3),
                                             grad_cpu.view(kBatch, Mesh::kVertices, 3)};
    vertex_normals_backward_cpu(q, 2);
    q.grad_vertices = grad_cuda.view(kBatch, Mesh::kVertices, 3);
    vertex_normals_backward_cuda(on_card(q), nullptr);
    wait_for_device();
    expect_same_bits(grad_cuda, grad_cpu, "gradient");

    Buffer<float> tangent_cpu(count), tangent_cuda(count);
    VertexNormalsTangentParameters<float> t{p.vertices, p.faces,        p.offsets,
                                            p.corners,  q.grad_normals, tangent_cpu.view(kBatch, Mesh::kVertices, 3)};
    vertex_normals_tangent_cpu(t, 2);
    t.normals_tangent = tangent_cuda.view(kBatch, Mesh::kVertices, 3);
    vertex_normals_tangent_cuda(on_card(t), nullptr);
    wait_for_device();
    expect_same_bits(tangent_cuda, tangent_cpu, "tangent");
}

Exercise const exercise("vertex_normals", run);

}  // namespace

}  // namespace focus::exercise
