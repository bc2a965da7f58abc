// Vertex-to-face lists of a mesh, in compressed rows: what the gathering backward passes walk.
#pragma once

#include "common/tensor_view.h"

namespace focus {

struct TopologyParameters {
    TensorView<int32_t const, 2> faces;  // [F, 3] vertex indices
    int64_t vertex_count;                // V
    TensorView<int32_t, 1> offsets;      // [V + 1] out: corners of vertex v are corners[offsets[v] .. offsets[v + 1])
    TensorView<int32_t, 1> corners;      // [3 F] out: 3 * face + corner, ascending for each vertex
};

// Returns the number of face entries outside [0, V); where it is not 0 the lists are not written. (On CUDA, Python sorts with torch.)
int64_t build_topology_cpu(TopologyParameters const& p);

}  // namespace focus
