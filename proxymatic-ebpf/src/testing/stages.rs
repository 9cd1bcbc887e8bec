//! The stages of the pipeline, called directly.

use crate::{
    packet::Parsed,
    packet_ctx::PacketCtx,
    pipeline::{self, Action, NextStage, Stages},
    testing::{packet::FakePacket, tables::FakeTables},
};

/// One packet at the egress or the ingress hook.
pub(crate) struct DirectStages<'a, const EGRESS: bool> {
    pub(crate) tables: &'a FakeTables,
    pub(crate) packet: &'a mut FakePacket,
    pub(crate) ctx: PacketCtx,
}

impl<const EGRESS: bool> Stages for DirectStages<'_, EGRESS> {
    type Verdict = Action;
    const PASS: Action = Action::Pass;
    const EGRESS: bool = EGRESS;

    fn parse(&mut self) -> Parsed {
        self.ctx.parse(self.packet)
    }
    fn classify(&mut self, parsed: Parsed) -> NextStage {
        pipeline::classify::<_, _, EGRESS>(self.tables, self.packet, parsed, &mut self.ctx)
    }
    fn handle_half_open(&mut self) -> NextStage {
        pipeline::handle_half_open::<_, EGRESS>(self.tables, &mut self.ctx)
    }
    fn select_backend(&mut self) -> NextStage {
        pipeline::select_backend(self.tables, self.packet, &mut self.ctx)
    }
    fn create_entries(&mut self) -> NextStage {
        pipeline::create_entries(self.tables, self.packet, &mut self.ctx)
    }
    fn forward(&mut self) -> Action {
        pipeline::forward(self.tables, self.packet, &mut self.ctx)
    }
    fn forward_icmp_error(&mut self) -> Action {
        pipeline::forward_icmp_error(self.tables, self.packet, &mut self.ctx)
    }
}
