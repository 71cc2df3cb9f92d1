"""What rows of the journal and replies of the provider are made of: what zlib finds here it only points to.

A dictionary never changes: what was packed with it is read with it. Another one gets another number, and new rows are
packed with it. The commonest stands last, where pointing to it costs least.
"""

from __future__ import annotations

from typing import Final

_JOURNAL: Final = (
    'order_quarantined\n{"quarantined_at_ms":~0,"quarantine_reason":"\n{"text":"'
    'resolved\n{"state":"abandoned","state_since_ms":~0,"giving_up":"resolved the payment as written off: ","payment.'
    'htlc":"gone","payment.htlc_since_ms":~0,"payment.failure_reason":"by_operator","payment.failure_failure_class":"'
    'read_later"}\n{"resolution":"written_off","by":"","why":"'
    'htlc_looked_for\n{"payment.gone_since_ms":~0,"payment.first_look_height":,"payment.uncarried_since_ms":~0}\n{"lo'
    'ok":{"block_height":8,"is_synced":true,"is_in_channel":true,"is_maybe_closing":false}}'
    'provider_failed\nprovider_confused\n{"anomaly_count":1}\n{"text":"HTTP 50","unread":"'
    'balance_seen\n{"charge.unmoved_since_ms":~0}\n{"balance_sat":10000,"is_alone":true}'
    'payment_not_found\n{"payment.absent_since_ms":~0}\n{}tracking_lost\n{"payment.htlc":"unknown","payment.htlc_sinc'
    'e_ms":~0}\n{"text":"Stream removed"}'
    'send_refused\n{"payment.refusal":"\n{"text":"invoice expired","has_hash":true}invoice_undecodable\n'
    'placing_failed\n{"place_count":2,"place_at_ms":~5000,"provider_text":"","end":"provider_refused","reason":"the p'
    'rovider did not take the order: "}\n{"text":"","may_retry":true,"wait_s":0,"is_sure":false}'
    'invoice_decoded\n{"state":"abandoned","closed_at_ms":~0,"end":"invoice_rejected","reason":"the hold invoice was '
    "refused: it asks 9,000 sat, and at most 2,040 sat were allowed (by the quote of 2,000 sat + 2 %, the request or "
    'payment.max_price_sat)"}'
    'cancel_requested\n{"state":"abandoned","cancel_wanted_at_ms":~0,"cancel_at_ms":~0,"closed_at_ms":~0,"end":"cance'
    'led_unpaid","reason":"canceled at your request before it was paid"}\n{}'
    'cancel_answered\n{"provider_text":"","cancel_at_ms":~30000}\n{"accepted":true,"text":"'
    'daemon_restarted\n{"payment.htlc":"unknown","payment.htlc_since_ms":~0}\n{}time_passed\n{"giving_up":"'
    'charge_intended\n{"charge.state":"intended","charge.since_ms":~0,"charge.amount_sat":2000,"charge.balance_before'
    '_sat":10000,"charge.intended_at_ms":~0}\n{"balance_sat":10000}'
    'order_placed\n{"state":"paid","state_since_ms":~0,"provider_order_id":"","charge.state":"charged","charge.since_'
    'ms":~0}\n{"provider_order_id":"","payreq":null}'
    'provider_replied\n{"charge.state":"returned","charge.since_ms":~0}'
    'payment_reported\n{"payment.htlc":"failed","payment.htlc_since_ms":~0,"payment.fee_limit_msat":20000,"payment.di'
    'spatch_at_ms":~60000,"payment.fee_msat":0,"payment.failure_reason":"no_route","payment.failure_failure_class":"r'
    'outing","payment.failure_attempt_count":1,"payment.failure_payment_index":1,"payment.failure_at_ms":~0}\n{"updat'
    'e":{"status":"failed","failure_reason":"timeout","attempts":[],"fee_msat":0,"preimage":null,"payment_index":2,"c'
    'reated_at_ms":~-1},"live":false}'
    'payment_reported\n{"giving_up":"the payment had reached the payee, and came back","payment.htlc":"failed","payme'
    'nt.htlc_since_ms":~0,"payment.fee_msat":0,"payment.failure_reason":"incorrect_payment_details","payment.failure_'
    'failure_class":"payee_refused","payment.failure_attempt_count":1,"payment.failure_payment_index":1,"payment.fail'
    'ure_at_ms":~0}\n{"update":{"status":"failed","failure_reason":"incorrect_payment_details","attempts":[{"attempt_'
    'id":1,"status":"failed","amount_msat":2000000,"fee_msat":1002,"expiry_height":800163,"hop_count":2,"attempted_at'
    '_ms":~-1,"resolved_at_ms":~-1,"failure_code":1,"failure_source_index":2}],"fee_msat":0,"preimage":null,"payment_'
    'index":1,"created_at_ms":~-1},"live":true}'
    'provider_replied\n{"state":"canceled","state_since_ms":~0,"provider_text":"No available number, payment request '
    'is canceled. Your funds are returned to your wallet automatically.","closed_at_ms":~0,"end":"refunded","reason":'
    '"'
    'order_requested\n{"id":"","created_at_ms":~0,"pay_by_ms":~600000,"max_price_sat":2040,"max_fee_sat":20,"quote_sa'
    't":2000,"state":"requested","state_since_ms":~0,"place_count":0,"place_at_ms":~0,"anomaly_count":0,"reason":"","'
    'quarantine_reason":""}'
    'invoice_decoded\n{"payment.payment_hash":"","payment.payee":"035b04e00521a8d50894e813c72576d2a03a09cd940be074b7f'
    '2e35e0a01d7d12d","payment.amount_msat":2000000,"payment.expires_at_ms":~86400000,"payment.final_cltv_delta":40,"'
    'payment.node_pubkey":"","payment.node_network":"mainnet","payment.htlc":"none","payment.htlc_since_ms":~0,"payme'
    'nt.dispatch_count":0,"payment.fee_limit_msat":10000,"payment.dispatch_at_ms":~0,"payment.is_known_to_lnd":0,"pay'
    'ment.reached_payee":0,"payment.fee_msat":0,"payment.attempt_count":0,"payment.was_there_before":0,"payment.is_pa'
    'id_before":0}\n{"invoice":{"payment_hash":"","payee":"","amount_msat":2000000,"created_at_ms":~-1000,"expiry_s":'
    '86400,"final_cltv_delta":40,"has_payment_address":true,"memo":"sms4sats payment Germany"},"node":{"pubkey":"","n'
    'etwork":"mainnet"},"seen_before":false}'
    'order_placed\n{"state":"awaiting_payment","state_since_ms":~0,"place_count":1,"provider_order_id":"","payreq":"l'
    'nbc20u1p"}\n{"provider_order_id":"","payreq":"lnbc"}'
    'payment_reported\n{"closed_at_ms":~0,"end":"fulfilled","payment.htlc":"settled","payment.htlc_since_ms":~0,"paym'
    'ent.reached_payee":1,"payment.preimage":""}\n{"update":{"status":"succeeded","failure_reason":"none","attempts":'
    '[{"attempt_id":1,"status":"succeeded","amount_msat":2000000,"fee_msat":1002,"expiry_height":800163,"hop_count":2'
    ',"attempted_at_ms":~-1,"resolved_at_ms":~-1}],"fee_msat":1002,"preimage":"","payment_index":1,"created_at_ms":~-'
    '1},"live":true}'
    'dispatch_intended\n{"payment.htlc":"dispatching","payment.dispatch_count":1,"payment.dispatch_at_ms":null,"payme'
    'nt.money_out_since_ms":~0}\n{"node":{"pubkey":"0","network":"mainnet"}}'
    'payment_reported\n{"payment.htlc":"in_flight","payment.htlc_since_ms":~0,"payment.is_known_to_lnd":1,"payment.ex'
    'piry_height":800163,"payment.fee_msat":1002,"payment.attempt_count":1}\n{"update":{"status":"in_flight","failure'
    '_reason":"none","attempts":[{"attempt_id":1,"status":"in_flight","amount_msat":2000000,"fee_msat":1002,"expiry_h'
    'eight":800163,"hop_count":2,"attempted_at_ms":~-1}],"fee_msat":0,"preimage":null,"payment_index":1,"created_at_m'
    's":~-1},"live":true}'
)
_REPLIES: Final = (
    "Your WhatsApp code: Your Telegram Google verification code is Don't share it with others. Use it to log in."
    '"send_status":"delivered"failed"created"sent"}}{"status":"OK","paid":true,"id":"","smsStatus":"created"sent"deli'
    'vered"failed","timestamp":1'
    '{"status":"error","reason":"unable to save data"}{"status":"OK"}'
    '{"asked_at_ms":~-100,"status":{"is_paid":true,"error":"No available number, payment request is canceled. Your fu'
    'nds are returned to your wallet automatically."}}'
    '{"asked_at_ms":~-100,"status":{"is_paid":true,"messages":["","code_may_lack_zeros":true'
    '{"provider_order_id":"","payreq":"lnbc"}\x00{"status":"OK","orderId":"","payreq":"lnbc"}{"status": "OK", "orderI'
    'd": "", "payreq": "paid"}'
    '{"status": "OK", "paid": true, "code": "", "id": "", "number": "", "timestamp": 17, "country": "", "service": ""'
    "}"
    '{"status":"OK","paid":false,"code":"","id":"","number":"","timestamp":17,"country":"","service":"'
    'provider_replied\n{"state":"delivered","state_since_ms":~0,"payment.reached_payee":1}'
    'provider_replied\n{"state":"number_assigned","state_since_ms":~0}'
    'provider_replied\n{"state":"paid","state_since_ms":~0,"payment.reached_payee":1}'
    '{"asked_at_ms":~-100,"status":{"is_paid":true,"number":"1","code":""}}\x00{"status":"OK","paid":true,"code":"","'
    'id":"'
)

DISTANCE_MARK: Final = "\x01"
"""Before how far a time is from that of its row; ~ in the texts above."""
DICTIONARIES: Final = {1: (_JOURNAL + _REPLIES).replace("~", DISTANCE_MARK).encode()}
"""By number. Each has less than 8 KiB: zlib looks no further back."""
