import asyncio, pytest
from tests.contract.test_lnd_contract import *
from tests.contract.conftest import *
@pytest.mark.real
async def test_probe(real):
    async with real.connect() as lnd:
        for d in (24,40):
            asked = await order(real, cltv_delta=d)
            h=(await lnd.info()).block_height
            stream = await hold(real, lnd, asked)
            r=(await stream.out()).htlcs[0].route
            print('height',h,'hop expiries',[x.expiry for x in r.hops],r.total_time_lock)
            for i in range(60):
                await real.mine(1); await asyncio.sleep(.25)
                if stream.messages[-1].status==3: break
            print('mined',i+1,'height',(await lnd.info()).block_height, stream.messages[-1].htlcs[0].failure)
