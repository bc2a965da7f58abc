#include "bindings/bind.h"
#include "bindings/dispatch.h"
#include "topology/topology.h"

namespace focus::bindings {

void bind_topology(py::module_& module) {
    module.def("build_topology", [](py::object faces, int64_t vertex_count, py::object offsets, py::object corners) {
        Arguments arguments("build_topology", 1, 0);
        TopologyParameters p{};
        p.faces = arguments.view<int32_t const, 2>("faces", faces, {kAny, 3});
        arguments.check_face_count(p.faces.size[0]);
        if (vertex_count < 0 || vertex_count > INT32_MAX - 1) arguments.fail("vertex_count", "must lie in [0, 2^31 - 1)");
        p.vertex_count = vertex_count;
        p.offsets = arguments.view<int32_t, 1>("offsets", offsets, {vertex_count + 1});
        p.corners = arguments.view<int32_t, 1>("corners", corners, {3 * p.faces.size[0]});
        if (arguments.target().cuda) arguments.fail("faces", "expected on the CPU");
        py::gil_scoped_release release;
        return build_topology_cpu(p);
    });
}

}  // namespace focus::bindings
