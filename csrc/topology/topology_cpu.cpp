#include <vector>

#include "topology/topology.h"

namespace focus {

int64_t build_topology_cpu(TopologyParameters const& p) {
    int64_t const corner_count = p.faces.count();
    int64_t invalid = 0;
    for (int64_t i = 0; i < corner_count; ++i) {
        invalid += p.faces.data[i] < 0 || p.faces.data[i] >= p.vertex_count;
    }
    if (invalid) return invalid;

    // Counting sort; walking the corners in order keeps each vertex's list ascending.
    std::vector<int32_t> next(p.vertex_count + 1, 0);
    for (int64_t i = 0; i < corner_count; ++i) ++next[p.faces.data[i] + 1];
    for (int64_t v = 0; v < p.vertex_count; ++v) next[v + 1] += next[v];
    for (int64_t v = 0; v <= p.vertex_count; ++v) p.offsets.data[v] = next[v];
    for (int64_t i = 0; i < corner_count; ++i) p.corners.data[next[p.faces.data[i]]++] = static_cast<int32_t>(i);
    return 0;
}

}  // namespace focus
